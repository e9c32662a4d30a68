// What this browser remembers: settings, the last workflow with its values, tasks that are not over.
// Where storage is forbidden or full, nothing is remembered and everything works.

const PREFIX = 'comfy-agent.';

export function recall(key, otherwise) {
  try {
    const text = localStorage.getItem(PREFIX + key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

// False: it is not kept.
export function remember(key, value) {
  try {
    if (value === null)
      localStorage.removeItem(PREFIX + key);
    else
      localStorage.setItem(PREFIX + key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
