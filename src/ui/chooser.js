// Where workflows come from: the server's directory, a file by choice or drop.

import {ask} from './api.js';
import {button, h, icon, openDialog} from './dom.js';
import {NotAWorkflow, readDocument} from './workflow.js';
import {t} from './words.js';

const FILE_MAX = 16 * 1024 * 1024;

// [{name, file}], or null where they cannot be had.
export async function listWorkflows() {
  const answer = await ask('api/workflows');
  return answer.status === 200 ? answer.json.workflows : null;
}

// One of the server's; throws with a sentence.
export async function fetchWorkflow(name) {
  const answer = await ask(`api/workflows/${encodeURIComponent(name)}`);
  if (answer.status !== 200)
    throw new Error((answer.json && answer.json.error && answer.json.error.detail) || `HTTP ${answer.status}`);
  return readDocument(answer.text, name);
}

export async function readFile(file) {
  const name = file.name.replace(/\.(json|png)$/i, '');
  if (file.type !== 'image/png') {
    if (file.size > FILE_MAX)
      throw new NotAWorkflow('too_large', {n: FILE_MAX / 1024 / 1024});
    return readDocument(await file.text(), name);
  }
  const text = promptOfPicture(await file.slice(0, FILE_MAX).arrayBuffer()); // it stands before the picture itself
  if (text === null)
    throw new NotAWorkflow('no_prompt');
  return readDocument(text, name);
}

// ComfyUI writes the prompt into the pictures that it saves: a tEXt chunk, "prompt\0{…}".
function promptOfPicture(bytes) {
  const view = new DataView(bytes);
  for (let at = 8; at + 12 <= bytes.byteLength;) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.byteLength)
      break;
    const type = new TextDecoder('latin1').decode(new Uint8Array(bytes, at + 4, 4));
    const text = type === 'tEXt' ? new TextDecoder('latin1').decode(new Uint8Array(bytes, at + 8, length)) : '';
    if (text.startsWith('prompt\0'))
      return text.slice('prompt\0'.length);
    at += 12 + length;
  }
  return null;
}

function sentenceOf(fault) {
  return fault instanceof NotAWorkflow ? t(fault.code, fault.about) : t('loadFailed', {why: fault.message});
}

// onchoose({title, prompt, params}, name of the server's file or null)
export class Chooser {
  constructor(onchoose) {
    this.onchoose = onchoose;
  }

  get isOpen() {
    return Boolean(this.dialog && this.dialog.open);
  }

  async open() {
    const files = h('input', {type: 'file', accept: '.json,.png,application/json,image/png', hidden: true, onchange: () => this.takeFile(files.files[0])});
    this.list = h('ul', {class: 'workflows'}, h('li', {class: 'hint'}, t('loading')));
    this.fault = h('p', {class: 'fault', role: 'alert', hidden: true});
    const drop = h('div', {class: 'drop'},
      h('button', {type: 'button', class: 'small', onclick: () => files.click()}, icon('file'), t('openFile')),
      h('p', {class: 'hint'}, t('dropWorkflow')), files);
    this.dialog = openDialog({class: 'chooser', 'aria-labelledby': 'chooser-title'},
      h('div', {class: 'drawer-top'}, h('h2', {id: 'chooser-title'}, t('chooseWorkflow')), button('close', t('close'), () => this.dialog.close())),
      h('p', {class: 'hint'}, t('workflowHint')), this.fault,
      h('h3', {}, t('fromServer')), this.list, drop);
    this.offering = false;
    const found = await listWorkflows();
    if (this.offering) // those of a file that was opened meanwhile
      return;
    this.list.replaceChildren(...(found && found.length > 0
      ? found.map(({name}) => this.entry(name, () => this.takeServers(name)))
      : [h('li', {class: 'hint'}, t(found === null ? 'listUnread' : 'noWorkflows'))]));
  }

  entry(title, onclick) {
    return h('li', {}, h('button', {type: 'button', class: 'workflow', onclick}, icon('flow'), h('span', {}, title)));
  }

  async takeServers(name) {
    await this.take(() => fetchWorkflow(name), name);
  }

  async takeFile(file) {
    if (file)
      await this.take(() => readFile(file), null);
  }

  // Opened by a drop on the page, too.
  async take(read, name) {
    try {
      const found = await read();
      if (found.length === 1)
        this.choose(found[0], name);
      else
        await this.offer(found, name);
    } catch (fault) {
      if (!this.isOpen)
        await this.open();
      this.fault.textContent = sentenceOf(fault);
      this.fault.hidden = false;
    }
  }

  choose(workflow, name) {
    if (this.dialog)
      this.dialog.close();
    this.onchoose(workflow, name);
  }

  async offer(found, name) {
    if (!this.isOpen)
      await this.open();
    this.offering = true;
    this.dialog.querySelector('h3').textContent = t('severalInFile');
    this.list.replaceChildren(...found.map(workflow => this.entry(workflow.title, () => this.choose(workflow, name))));
    this.list.querySelector('button').focus();
  }
}
