// An error as the agent tells it, in words and as marks at fields.

import {hasWords, t} from './words.js';

const nameOf = (prompt, id, type) => {
  const node = prompt && prompt.nodes.get(String(id));
  return node ? node.title : type || id;
};

function refusedInputs(error, prompt) {
  const found = [];
  for (const [id, node] of Object.entries(error.node_errors || {}))
    for (const one of node.errors || []) {
      const key = one.extra_info && one.extra_info.input_name;
      const text = one.details && one.details !== key && !one.message.includes(one.details) ? `${one.message}: ${one.details}` : one.message;
      found.push({id, key: key || '', text, where: nameOf(prompt, id, node.class_type)});
    }
  return found;
}

// {sentence, marks: [{id, key, text, where}], details (text, or '')}
export function explain(error, prompt) {
  const marks = refusedInputs(error, prompt);
  if (error.node_id !== undefined && error.input !== undefined)
    marks.push({id: String(error.node_id), key: error.input, text: error.detail, where: nameOf(prompt, error.node_id, error.class_type)});
  const node = error.node_id === undefined ? '' : nameOf(prompt, error.node_id, error.class_type);
  const known = hasWords(error.code);
  const sentence = known ? t(error.code, {node, detail: error.detail}) : error.detail || error.code;
  const details = [
    known && !sentence.includes(error.detail) && !marks.some(mark => mark.text === error.detail) ? error.detail : '',
    error.exception_type ? `${error.exception_type}\n${(error.traceback || []).join('')}` : '',
    error.hint || '',
    error.exit ? `exit: ${error.exit}` : '',
    Array.isArray(error.log_tail) ? error.log_tail.join('\n') : error.log_tail || '',
  ].filter(Boolean).join('\n\n');
  return {sentence, marks, details};
}
