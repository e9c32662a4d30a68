// An error as the agent tells it, in words and as marks at fields.

import {isFault, t} from './words.js';

const nameOf = (prompt, id, type) => {
  const node = prompt && prompt.nodes.get(String(id));
  return node ? node.title : type || id;
};

// As ComfyUI says it; what a node of somebody's own says may be anything.
function refusedInputs(error, prompt) {
  const found = [];
  for (const [id, node] of Object.entries(error.node_errors || {}))
    for (const one of (node && node.errors) || []) {
      const key = one.extra_info && one.extra_info.input_name;
      const [message, details] = [one.message, one.details].map(value => String(value ?? ''));
      const text = details !== key && !message.includes(details) ? `${message}: ${details}` : message;
      found.push({id, key: key || '', text, where: nameOf(prompt, id, node.class_type)});
    }
  return found;
}

const linesOf = (value, separator) => (Array.isArray(value) ? value.join(separator) : String(value ?? ''));

// {sentence, marks: [{id, key, text, where}], details (text, or '')}
export function explain(error, prompt) {
  const marks = refusedInputs(error, prompt);
  if (error.node_id !== undefined && error.input !== undefined)
    marks.push({id: String(error.node_id), key: error.input, text: error.detail, where: nameOf(prompt, error.node_id, error.class_type)});
  const node = error.node_id === undefined ? '' : nameOf(prompt, error.node_id, error.class_type);
  const known = isFault(error.code);
  const sentence = known ? t(error.code, {node, detail: error.detail}) : error.detail || error.code;
  const details = [
    known && !sentence.includes(error.detail) && !marks.some(mark => mark.text === error.detail) ? error.detail : '',
    error.exception_type ? `${error.exception_type}\n${linesOf(error.traceback, '')}` : '',
    error.hint || '',
    error.exit ? `ComfyUI: ${Object.entries(error.exit).map(([name, value]) => `${name} ${value}`).join(', ')}` : '',
    linesOf(error.log_tail, '\n'),
  ].filter(Boolean).join('\n\n');
  return {sentence, marks, details};
}
