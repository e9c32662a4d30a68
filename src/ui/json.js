// JSON with the place of every value in its text. What a prompt says is changed by replacing just
// those bytes: digits of large seeds, 7.0 beside 7, order and unknown fields stay what they were.

const DEPTH_MAX = 200;

export class JsonFault extends Error {
  constructor(text, at) {
    super('not JSON');
    const before = text.slice(0, at).split('\n');
    this.line = before.length;
    this.column = before[before.length - 1].length + 1;
  }
}

class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  }

  fault(at = this.at) {
    throw new JsonFault(this.text, at);
  }

  space() {
    while (' \t\n\r'.includes(this.text.charAt(this.at) || 'x'))
      this.at++;
  }

  take(character) {
    this.space();
    if (this.text[this.at] !== character)
      return false;
    this.at++;
    return true;
  }

  string() {
    const start = this.at;
    let at = start + 1;
    for (let code; (code = this.text.charCodeAt(at)) !== 34; at += code === 92 ? 2 : 1)
      if (!(code >= 32))
        this.fault(at);
    this.at = at + 1;
    try {
      return JSON.parse(this.text.slice(start, this.at));
    } catch {
      return this.fault(start);
    }
  }

  object(depth) {
    const members = [];
    if (this.take('}'))
      return {kind: 'object', members};
    do {
      this.space();
      const at = this.at;
      if (this.text[at] !== '"')
        this.fault();
      const key = this.string();
      if (!this.take(':'))
        this.fault();
      members.push({key, at, value: this.value(depth)});
    } while (this.take(','));
    if (!this.take('}'))
      this.fault();
    return {kind: 'object', members};
  }

  array(depth) {
    const items = [];
    if (this.take(']'))
      return {kind: 'array', items};
    do
      items.push(this.value(depth));
    while (this.take(','));
    if (!this.take(']'))
      this.fault();
    return {kind: 'array', items};
  }

  scalar() {
    for (const word of ['true', 'false', 'null'])
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return {kind: word === 'null' ? 'null' : 'boolean', value: JSON.parse(word)};
      }
    this.number.lastIndex = this.at;
    const found = this.number.exec(this.text);
    if (found === null)
      this.fault();
    this.at = this.number.lastIndex;
    return {kind: 'number', value: Number(found[0])};
  }

  value(depth) {
    this.space();
    const start = this.at;
    const first = this.text[start];
    let found;
    if (depth > DEPTH_MAX)
      this.fault();
    if (first === '{' || first === '[') {
      this.at++;
      found = first === '{' ? this.object(depth + 1) : this.array(depth + 1);
    } else if (first === '"') {
      found = {kind: 'string', value: this.string()};
    } else {
      found = this.scalar();
    }
    found.start = start;
    found.end = this.at;
    return found;
  }
}

// {kind, start, end} with `value` (string, number, boolean, null), `members` or `items`.
export function scan(text) {
  const scanner = new Scanner(text.startsWith('\ufeff') ? ' ' + text.slice(1) : text);
  const top = scanner.value(0);
  scanner.space();
  if (scanner.at < text.length)
    scanner.fault();
  return top;
}

// The value of a key, or undefined; the last one if it was given twice, as ComfyUI reads it.
export function get(object, key) {
  let found;
  if (object && object.kind === 'object')
    for (const member of object.members)
      if (member.key === key)
        found = member.value;
  return found;
}

// What JSON.parse() would have made of it.
export function plain(value) {
  if (value === undefined)
    return undefined;
  if (value.kind === 'array')
    return value.items.map(plain);
  if (value.kind !== 'object')
    return value.value;
  const made = Object.create(null);
  for (const member of value.members)
    made[member.key] = plain(member.value);
  return made;
}

// changes: [{start, end, text}] that do not overlap.
export function splice(text, changes) {
  const ordered = [...changes].sort((a, b) => b.start - a.start || b.end - a.end);
  for (const change of ordered)
    text = text.slice(0, change.start) + change.text + text.slice(change.end);
  return text;
}

// The same document to be read by people: objects in objects on lines of their own down to `depth`.
export function pretty(text, depth = 2) {
  const write = (value, left, indent) => {
    if (value.kind === 'array')
      return `[${value.items.map(item => write(item, 0, '')).join(', ')}]`;
    if (value.kind !== 'object')
      return text.slice(value.start, value.end);
    const inner = indent + '  ';
    const members = value.members.map(({key, value: of}) => `${JSON.stringify(key)}: ${write(of, left - 1, inner)}`);
    if (left <= 0 || members.length === 0)
      return `{${members.join(', ')}}`;
    return `{\n${members.map(member => inner + member).join(',\n')}\n${indent}}`;
  };
  return write(scan(text), depth, '');
}
