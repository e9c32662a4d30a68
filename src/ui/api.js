// Calls to the agent. The page lies at …/ui, everything else beside it, so all addresses are
// relative to the page's own.

const base = new URL('.', document.baseURI);

export function address(path) {
  return new URL(path, base).href;
}

export const origin = base.href.replace(/\/$/, '');

// {status, headers, text, json}; status 0: no answer. json is null where the body is none.
export async function ask(path, options) {
  try {
    const answer = await fetch(address(path), options);
    const text = await answer.text();
    let json = null;
    try {
      json = JSON.parse(text);
    } catch {
      // ComfyUI's pages, and what proxies say
    }
    return {status: answer.status, headers: answer.headers, text, json};
  } catch {
    return {status: 0, headers: new Headers(), text: '', json: null};
  }
}

// crypto.randomUUID() exists on secure pages only.
export function freshTaskId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

export function socket(path) {
  return new WebSocket(address(path).replace(/^http/, 'ws'));
}

export const taskPath = id => `api/tasks/${encodeURIComponent(id)}`;

// Where a picture that ComfyUI knows by name can be seen: "folder/a.png [output]".
export function viewOf(name) {
  const found = /^(.*?)(?: \[(input|output|temp)\])?$/s.exec(name);
  const slash = found[1].lastIndexOf('/');
  const query = new URLSearchParams({
    filename: found[1].slice(slash + 1),
    subfolder: slash < 0 ? '' : found[1].slice(0, slash),
    type: found[2] || 'input',
  });
  return address(`view?${query}`);
}

const asDataUri = file => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

// What an input can say for this file: its name with ComfyUI; or, where its pages are hidden or it is
// not there, the file itself, which the agent then uploads.
export async function upload(file) {
  const form = new FormData();
  form.append('image', file, file.name || 'picture.png');
  const answer = await ask('upload/image', {method: 'POST', body: form});
  if (answer.status !== 200 || !answer.json || typeof answer.json.name !== 'string')
    return asDataUri(file);
  return answer.json.subfolder ? `${answer.json.subfolder}/${answer.json.name}` : answer.json.name;
}
