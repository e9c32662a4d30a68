// The panel's fields, from a schema or proposed from the prompt.
//
// A schema is a list of {type: image|select|number|string|group, id?, key, title, description?,
// options? (a list, or a class of nodes whose input of that key has the choices), min?, max?, step?,
// hidden?, children?}. A field as used here has all of them, `id` filled in (a node's own
// `_meta.edit` needs none, children take their group's).

import {isKnownInput, t, titleOfInput} from './words.js';

const TYPES = ['image', 'select', 'number', 'string', 'group'];
const number = value => (typeof value === 'number' && Number.isFinite(value) ? value : null);
const text = value => (typeof value === 'string' ? value : '');

function readField(param, id) {
  if (param === null || typeof param !== 'object')
    return null;
  const own = param.id === undefined || param.id === null || param.id === '' ? id : String(param.id);
  const children = Array.isArray(param.children) ? param.children : [];
  return {
    type: TYPES.includes(param.type) ? param.type : 'string',
    id: own,
    key: text(param.key),
    title: text(param.title) || titleOfInput(text(param.key)),
    description: text(param.description),
    options: Array.isArray(param.options) ? param.options : null,
    optionsOf: text(param.options),
    min: number(param.min),
    max: number(param.max),
    step: number(param.step),
    hidden: param.hidden === true,
    children: children.map(child => readField(child, own)).filter(Boolean),
  };
}

function fieldsOfParams(params, id) {
  return params.map(param => readField(param, id)).filter(Boolean);
}

// A field beside the prompt that names no node means the only one that has such an input.
function findNodes(fields, prompt) {
  for (const field of leaves(fields)) {
    if (field.id !== undefined)
      continue;
    const having = [...prompt.nodes.values()].filter(node => node.inputs.has(field.key));
    if (having.length === 1)
      field.id = having[0].id;
  }
  return fields;
}

// The schema that came with a workflow; null: none.
export function fieldsOfWorkflow({prompt, params}) {
  if (params !== null)
    return findNodes(fieldsOfParams(params), prompt);
  const found = prompt.edit.flatMap(edit => fieldsOfParams(edit.params, edit.id));
  return found.length > 0 ? found : null;
}

export function* leaves(fields) {
  for (const field of fields)
    if (field.type === 'group')
      yield* leaves(field.children);
    else
      yield field;
}

// As a schema that others can read: what is not said is left out.
export function paramsOfFields(fields) {
  return fields.map(field => {
    const param = {type: field.type, id: field.id, key: field.key, title: field.title};
    if (field.description)
      param.description = field.description;
    if (field.options || field.optionsOf)
      param.options = field.options || field.optionsOf;
    for (const name of ['min', 'max', 'step'])
      if (field[name] !== null)
        param[name] = field[name];
    if (field.hidden)
      param.hidden = true;
    if (field.type === 'group')
      param.children = paramsOfFields(field.children);
    return param;
  });
}

// --- without a schema ------------------------------------------------------------------------

const SIZES = ['width', 'height', 'batch_size', 'length', 'fps', 'duration', 'megapixels'];
const MODEL = /(^|_)(ckpt|unet|lora|vae|clip|model|checkpoint|control_net|upscale_model|style_model)(_name)?\d*$/;
const LAST = /filename_prefix|^(weight_dtype|device|crop|upscale_method|control_after_generate)$/;

// Where in the panel: texts, seeds, steps, sizes, images, models; the rest is folded.
const FIRST_MAX = 80; // of thousands of fields nobody sees more, and a browser takes seconds to place them
const RANKS = ['text', 'seed', 'steps', 'size', 'image', 'model', 'rest'];

function rankOf(node, key, type, spec) {
  if (type === 'image')
    return 'image';
  if (key === 'seed' || key === 'noise_seed')
    return 'seed';
  if (key === 'steps')
    return 'steps';
  if (SIZES.includes(key))
    return 'size';
  if (MODEL.test(key) && (type === 'select' || type === 'string'))
    return 'model';
  if (LAST.test(key) || type !== 'string')
    return 'rest';
  const isText = (spec && spec.options.multiline === true) || /^text|text$|prompt|string|caption|lyrics|tags/.test(key);
  return isText ? 'text' : 'rest';
}

function typeOf(node, key, value, spec, info) {
  if (info.isImage(node.type, key))
    return 'image';
  if (spec && spec.choices)
    return 'select';
  if (value.kind === 'boolean')
    return 'select';
  return value.kind === 'number' ? 'number' : 'string';
}

function proposeField(node, key, value, info) {
  const spec = info.spec(node.type, key);
  const type = typeOf(node, key, value, spec, info);
  const options = spec ? spec.options : {};
  const isSeed = key === 'seed' || key === 'noise_seed';
  return {
    type, id: node.id, key, node,
    rank: rankOf(node, key, type, spec),
    title: titleOfInput(key),
    description: isKnownInput(key) ? '' : text(options.tooltip),
    options: value.kind === 'boolean' ? ['true', 'false'] : null,
    optionsOf: spec && spec.choices && value.kind !== 'boolean' ? node.type : '',
    min: type === 'number' && !isSeed ? number(options.min) : null,
    max: type === 'number' && !isSeed ? number(options.max) : null,
    step: type === 'number' && !isSeed ? number(options.step) : null,
    hidden: false,
    children: [],
  };
}

// "Seed" is enough where there is one; else the node's title tells which. A text's title is its node's
// where somebody has given that node a name.
function tellApart(fields) {
  const count = new Map();
  for (const field of fields) {
    const named = field.node.title !== field.node.type;
    if (field.rank === 'text' && named)
      field.title = field.node.title;
    count.set(field.title, (count.get(field.title) || 0) + 1);
  }
  for (const field of fields)
    if (count.get(field.title) > 1)
      field.title = `${field.title} (${field.node.title}${field.rank === 'text' ? ` ${field.id}` : ''})`;
}

export function propose(prompt, info) {
  const found = [];
  for (const node of prompt.nodes.values())
    for (const [key, value] of node.inputs)
      if (['string', 'number', 'boolean'].includes(value.kind) && !node.links.has(key) && key !== 'upload')
        found.push(proposeField(node, key, value, info));
  tellApart(found);
  const ranked = rank => found.filter(field => field.rank === rank).map(field => {
    const {node, rank: unused, ...rest} = field;
    return rest;
  });
  const all = RANKS.slice(0, -1).flatMap(ranked);
  const first = all.slice(0, FIRST_MAX);
  const rest = [...all.slice(FIRST_MAX), ...ranked('rest')];
  if (first.length === 0 || rest.length === 0)
    return [...first, ...rest];
  return [...first, {
    type: 'group', id: undefined, key: 'more', title: t('moreSettings'), description: '', options: null, optionsOf: '',
    min: null, max: null, step: null, hidden: false, folded: true, children: rest,
  }];
}

// Node classes whose description the panel can use.
export function classesOf(prompt, fields) {
  const names = [...prompt.nodes.values()].map(node => node.type);
  return fields ? names.concat([...leaves(fields)].map(field => field.optionsOf).filter(Boolean)) : names;
}
