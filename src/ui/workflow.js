// What people bring: a prompt, a document of the older panel ({title, prompt, params}, alone or in a
// list), an envelope. And a prompt as the page knows it: nodes, the links between them, and how to
// change an input without touching anything else.

import {JsonFault, get, plain, scan, splice} from './json.js';

export class NotAWorkflow extends Error {
  constructor(code, about = {}) {
    super(code);
    this.code = code; // not_json, ui_format, no_prompt, too_large
    this.about = about;
  }
}

const isLink = (value, nodes) =>
  value.kind === 'array' && value.items.length === 2 && nodes.has(String(value.items[0].value)) &&
  value.items[1].kind === 'number';

export class Prompt {
  constructor(text) {
    const top = scan(text);
    this.text = text;
    this.nodes = new Map();
    this.edit = []; // the panel's schema, where a node's or the prompt's `_meta.edit` has one
    this.extra = []; // members that are no nodes
    for (const member of top.members || [])
      this.addMember(member);
    if (this.nodes.size === 0)
      throw new NotAWorkflow('no_prompt');
    for (const node of this.nodes.values())
      for (const [key, value] of node.inputs)
        if (isLink(value, this.nodes))
          node.links.set(key, String(value.items[0].value));
  }

  addMember({key, at, value}) {
    const type = get(value, 'class_type');
    const meta = get(value, '_meta') || (key === '_meta' ? value : undefined);
    const edit = plain(get(meta, 'edit'));
    const isNode = type !== undefined && type.kind === 'string';
    if (edit !== undefined && edit !== null && typeof edit === 'object')
      this.edit.push({id: isNode ? key : undefined, params: Array.isArray(edit) ? edit : [edit]});
    if (!isNode) {
      this.extra.push({key, start: at, end: value.end});
      return;
    }
    const title = plain(get(meta, 'title'));
    const inputs = get(value, 'inputs');
    this.nodes.set(key, {
      id: key,
      type: type.value,
      title: typeof title === 'string' && title !== '' ? title : type.value,
      at: inputs,
      inputs: new Map(((inputs && inputs.members) || []).map(member => [member.key, member.value])),
      links: new Map(),
    });
  }

  input(id, key) {
    const node = this.nodes.get(id);
    return node && node.inputs.get(key);
  }

  // The input as it is written; undefined where there is none.
  textOf(id, key) {
    const value = this.input(id, key);
    return value && this.text.slice(value.start, value.end);
  }

  isLinked(id, key) {
    const node = this.nodes.get(id);
    return Boolean(node && node.links.has(key));
  }

  // Inputs that are whole numbers and choose the noise.
  seeds() {
    const found = [];
    for (const node of this.nodes.values())
      for (const key of ['seed', 'noise_seed'])
        if (/^-?\d+$/.test(this.textOf(node.id, key) || ''))
          found.push({id: node.id, key, text: this.textOf(node.id, key)});
    return found;
  }

  // edits: [{id, key, text}], text being JSON. `_meta` of the whole is not for ComfyUI.
  with(edits) {
    const changes = this.removeExtra();
    const filled = new Set(); // nodes without inputs that have got one
    for (const {id, key, text} of edits) {
      const node = this.nodes.get(id);
      const value = node && node.inputs.get(key);
      if (value !== undefined) {
        if (this.text.slice(value.start, value.end) !== text)
          changes.push({start: value.start, end: value.end, text});
      } else if (node && node.at) {
        const start = node.at.start + 1; // each comes before those before it
        const isLast = node.inputs.size === 0 && !filled.has(id);
        filled.add(id);
        changes.push({start, end: start, text: `${JSON.stringify(key)}: ${text}${isLast ? '' : ', '}`});
      }
    }
    return changes.length > 0 ? splice(this.text, changes) : this.text;
  }

  removeExtra() {
    return this.extra.filter(member => member.key === '_meta').map(({start, end}) => {
      const after = /^\s*,\s*/.exec(this.text.slice(end));
      const before = /,\s*$/.exec(this.text.slice(0, start));
      if (after !== null)
        return {start, end: end + after[0].length, text: ''};
      return {start: start - (before ? before[0].length : 0), end, text: ''};
    });
  }

  // The same nodes, whatever their inputs: values can be carried from one to the other.
  isLike(other) {
    return this.nodes.size === other.nodes.size &&
      [...this.nodes.values()].every(node => (other.nodes.get(node.id) || {}).type === node.type);
  }
}

// Seeds of run n out of several: what is -1 is left to the agent, the others count up.
export function seedsOfRun(prompt, n) {
  if (n === 0)
    return [];
  return prompt.seeds().filter(seed => seed.text !== '-1')
    .map(({id, key, text}) => ({id, key, text: String(BigInt.asUintN(64, BigInt(text) + BigInt(n)))}));
}

function readOne(text, value, name) {
  if (value.kind !== 'object')
    throw new NotAWorkflow('no_prompt');
  if (get(value, 'nodes') && get(value, 'nodes').kind === 'array')
    throw new NotAWorkflow('ui_format');
  const inner = get(value, 'prompt');
  const isDocument = inner !== undefined && inner.kind === 'object' && get(inner, 'class_type') === undefined;
  if (!isDocument)
    return {title: name, prompt: new Prompt(text.slice(value.start, value.end)), params: null};
  if (get(inner, 'nodes') && get(inner, 'nodes').kind === 'array')
    throw new NotAWorkflow('ui_format');
  const title = plain(get(value, 'title'));
  const params = plain(get(value, 'params'));
  return {
    title: typeof title === 'string' && title !== '' ? title : name,
    prompt: new Prompt(text.slice(inner.start, inner.end)),
    params: Array.isArray(params) ? params : null,
  };
}

// A document's workflows: [{title, prompt, params (null: none)}], at least one. Throws NotAWorkflow.
export function readDocument(text, name) {
  let top;
  try {
    top = scan(text);
  } catch (fault) {
    if (!(fault instanceof JsonFault))
      throw fault;
    throw new NotAWorkflow('not_json', {line: fault.line, column: fault.column});
  }
  const list = top.kind === 'array' ? top.items : [top];
  const found = list.map(item => readOne(text, item, name));
  if (found.length === 0)
    throw new NotAWorkflow('no_prompt');
  return found;
}
