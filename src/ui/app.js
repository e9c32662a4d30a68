// The page: a panel of fields for a workflow, a button, the results.
//
//     chooser ─ workflow ─► schema ─ fields ─► panel ─ edits ─► Prompt.with() ─► Run ─► gallery
//                              ▲                  ▲                                │
//                        info (object_info)       └── errors at their fields ◄─────┘
//
// theme.js has run before. Everything asks the agent by api.js, and is said by words.js.

import {ask, address, taskPath} from './api.js';
import {RunBar} from './bar.js';
import {Chooser, fetchWorkflow, listWorkflows, readFile} from './chooser.js';
import {showCode} from './code.js';
import {button, h, icon, openDialog, soon, toast} from './dom.js';
import {explain} from './errors.js';
import {Gallery} from './gallery.js';
import {NodeInfo} from './info.js';
import {Panel} from './panel.js';
import {Graph} from './progress.js';
import {Run} from './run.js';
import {classesOf, fieldsOfWorkflow, paramsOfFields, propose} from './schema.js';
import {recall, remember} from './store.js';
import {comparePicture, viewPictures} from './viewer.js';
import {currentLanguage, setLanguage, t} from './words.js';
import {Prompt, seedsOfRun} from './workflow.js';

const INFO_PATIENCE_MS = 1500;
const READY_AGAIN_MS = 2500;
const MINE_MAX = 60;
const FOREIGN_MAX = 8; // runs of others that are followed

const byId = id => document.getElementById(id);
const info = new NodeInfo();
let workflow = null; // {title, prompt, params, name}: the one that the panel shows
let opening = null; // the one that was asked for last
let active = []; // runs of ours that are under way

// --- the workflow ----------------------------------------------------------------------------

// Only what was changed: the rest is the workflow's own, which may be another next time. Pictures that
// lie in a value are more than a browser keeps; a workflow that is too large for it is the server's or
// has to be opened again, which is better than an older one in its place.
const saveWorkflow = soon(() => {
  if (!workflow)
    return;
  const {title, name, prompt, params} = workflow;
  const values = panel.changes().map(([at, text]) => [at, text.startsWith('"data:') ? '""' : text]);
  if (!remember('workflow', {title, name, prompt: prompt.text, params, values}))
    remember('workflow', name ? {title, name, values} : null);
});
const panel = new Panel(byId('panel'), {info, onchange: saveWorkflow});

function drawPanel(values) {
  const fields = fieldsOfWorkflow(workflow) || propose(workflow.prompt, info);
  panel.show(workflow.prompt, fields, values);
  byId('workflow-button').replaceChildren(h('span', {}, workflow.title || t('workflow')), icon('down'));
}

// Choices of ComfyUI are waited for, but not long: it may be starting. Until then the panel is the one
// before, and what is run is what it shows.
async function openWorkflow(found, name, values) {
  const mine = {...found, name};
  opening = mine;
  byId('panel').setAttribute('aria-busy', 'true');
  const loaded = info.load(classesOf(mine.prompt, fieldsOfWorkflow(mine))).then(() => true);
  const isLoaded = await Promise.race([loaded, new Promise(resolve => setTimeout(resolve, INFO_PATIENCE_MS))]);
  if (opening !== mine)
    return;
  workflow = mine;
  drawPanel(values);
  byId('panel').removeAttribute('aria-busy');
  saveWorkflow();
  showOverall();
  if (!isLoaded && await loaded && workflow === mine)
    redrawPanel();
}

// The same fields with what is known by now; whoever is typing goes on typing, at the same place.
let isComposing = false; // Chinese, say: letters that are not a word yet are in no value
let isRedrawWanted = false;
function redrawPanel() {
  isRedrawWanted = isComposing;
  if (isComposing)
    return;
  const focused = document.activeElement;
  const box = focused && focused.closest && focused.closest('[data-field]');
  const place = box && [...box.querySelectorAll('input, textarea, select, button')].indexOf(focused);
  drawPanel(panel.values);
  const again = box && byId('panel').querySelector(`[data-field="${CSS.escape(box.dataset.field)}"]`);
  const control = again && again.querySelectorAll('input, textarea, select, button')[place];
  if (!control)
    return;
  control.focus({preventScroll: true});
  if (typeof focused.selectionStart === 'number' && control.value === focused.value)
    control.setSelectionRange(focused.selectionStart, focused.selectionEnd);
}

const chooser = new Chooser((found, name) => openWorkflow(found, name));

// The last one, as the server has it now if it is the server's; else the server's first.
async function openFirstWorkflow() {
  const last = recall('workflow', null);
  const values = last ? new Map(last.values) : undefined;
  if (last) {
    try {
      const now = last.name ? (await fetchWorkflow(last.name).catch(() => [])).find(one => one.title === last.title) : null;
      await openWorkflow(now || {title: last.title, prompt: new Prompt(last.prompt), params: last.params}, last.name, values);
      return;
    } catch {
      // what was kept is of no use
    }
  }
  const found = await listWorkflows();
  if (found && found.length > 0)
    await chooser.take(() => fetchWorkflow(found[0].name), found[0].name);
  else
    await chooser.open();
}

function exportSchema() {
  const {title, prompt} = workflow;
  const text = `{"title": ${JSON.stringify(title)}, "params": ${JSON.stringify(paramsOfFields(panel.fields), null, 2)}, "prompt": ${prompt.with(panel.edits())}}`;
  const link = h('a', {href: URL.createObjectURL(new Blob([text], {type: 'application/json'})), download: `${title || 'workflow'}.json`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// --- running ---------------------------------------------------------------------------------

function presentPrompt() {
  return new Prompt(workflow.prompt.with(panel.edits()));
}

async function runAll(count) {
  if (!workflow || bar.isBusy)
    return;
  bar.setBusy(true);
  await panel.settled();
  bar.setBusy(false);
  panel.unmarkAll();
  const missing = panel.emptyPictures();
  if (missing.length > 0) {
    panel.mark(missing.map(({id, key}) => ({id, key, text: t('pictureMissing')})));
    return;
  }
  const base = presentPrompt();
  const runs = Array.from({length: count}, (unused, n) => {
    const prompt = new Prompt(base.with(seedsOfRun(base, n)));
    return new Run({title: workflow.title, prompt, graph: new Graph(prompt, info), onchange: changed});
  });
  gallery.prepend(runs);
  runs.forEach(watch);
  remember('mine', [...runs.map(run => run.id), ...recall('mine', [])].slice(0, MINE_MAX));
  byId('news').textContent = t('runStarted');
  byId('results').scrollTop = 0;
  if (matchMedia('(max-width: 800px)').matches)
    byId('results').scrollIntoView({block: 'start'});
  for (const run of runs)
    await new Promise(sent => run.begin(sent));
}

function watch(run) {
  active.push(run);
  saveActive();
  bar.add(run);
}

function saveActive() {
  remember('active', active.map(({id, title, started}) => ({id, title, since: started})));
}

const showOverall = soon(() => {
  const percent = bar.update();
  document.title = percent === null ? `${workflow ? workflow.title : ''} · comfy-agent` : `${percent} % · ${workflow ? workflow.title : ''}`;
});

function changed(run) {
  showOverall();
  if (!run.ended || !active.includes(run))
    return;
  active = active.filter(other => other !== run);
  saveActive();
  byId('news').textContent = t('runEnded', {title: run.title, status: t(run.status)});
  if (run.status === 'failed' && run.error && isShown(run))
    panel.mark(explain(run.error, run.prompt).marks);
  if (run.error && run.error.code !== 'cancelled')
    checkReady();
}

const bar = new RunBar(byId('run-bar'), runAll);

// --- results ---------------------------------------------------------------------------------

// null: it is not known any more, or never was one.
async function promptOfTask(id) {
  const answer = await ask(`${taskPath(id)}/prompt`);
  try {
    return answer.status === 200 ? new Prompt(answer.text) : null;
  } catch {
    return null;
  }
}

async function useSettings(run) {
  const prompt = await promptOfTask(run.id);
  if (prompt === null) {
    toast(t('promptGone'));
  } else if (workflow && prompt.isLike(workflow.prompt)) {
    panel.copyFrom(prompt);
    toast(t('parametersCopied'));
  } else {
    await openWorkflow({title: run.title, prompt, params: null}, null);
    toast(t('otherWorkflow'));
  }
}

async function chooseInput(controls) {
  if (controls.length < 2)
    return controls[0];
  return new Promise(resolve => {
    const dialog = openDialog({class: 'chooser', 'aria-label': t('whichInput')}, h('h2', {}, t('whichInput')),
      h('ul', {class: 'workflows'}, controls.map(control => h('li', {}, h('button', {
        type: 'button', class: 'workflow', onclick: () => {
          resolve(control);
          dialog.close();
        },
      }, icon('image'), control.field.title)))));
    dialog.addEventListener('close', () => resolve(undefined));
  });
}

async function useAsInput(output) {
  const controls = panel.pictures();
  if (controls.length === 0) {
    toast(t('noImageField'));
    return;
  }
  const control = await chooseInput(controls);
  if (!control)
    return;
  let picture;
  try {
    const answer = await fetch(address(output.url.slice(1)));
    if (!answer.ok) {
      toast(t('outputGone'));
      return;
    }
    picture = await answer.blob();
  } catch {
    toast(t('unreachable'));
    return;
  }
  control.picture.take(new File([picture], output.filename, {type: output.media_type}));
  panel.bring(control);
  toast(t('usedAsInput'));
}

// Does the panel show the workflow of this run? Nodes of others have the same numbers.
const isShown = run => Boolean(run.prompt && workflow && run.prompt.isLike(workflow.prompt));

const gallery = new Gallery(byId('results'), {
  view: (all, index) => viewPictures(all, Math.max(0, index), {useAsInput, useSettings, compare: comparePicture}),
  compare: comparePicture,
  useAsInput,
  useSettings,
  useSeed: ({id, key, text}) => panel.set(id, key, text),
  fieldTitle: ({id, key}, run) => (isShown(run) ? panel.titleOf(id, key) : undefined),
  focusField: async ({id, key}, run) => {
    if (!isShown(run))
      await useSettings(run);
    panel.focus(id, key);
  },
});

// What was under way when the page was left goes on being watched.
async function resumeActive() {
  const left = recall('active', []);
  const runs = await Promise.all(left.map(async ({id, title, since}) => {
    const prompt = await promptOfTask(id);
    return new Run({id, title, prompt, since, graph: prompt && new Graph(prompt, info), onchange: changed});
  }));
  gallery.prepend(runs);
  for (const run of runs) {
    watch(run);
    run.resume();
  }
}

// What its nodes are called, for the bar and for errors.
async function readPrompt(run) {
  run.prompt = await promptOfTask(run.id);
  run.graph = run.prompt && new Graph(run.prompt, info);
  run.onchange(run);
}

// Some at a time; whoever ends makes room for the next.
const foreign = [];
let followed = 0;
function followForeign() {
  while (followed < FOREIGN_MAX && foreign.length > 0) {
    const run = foreign.shift();
    followed++;
    readPrompt(run).then(() => run.resume()).finally(() => {
      followed--;
      followForeign();
    });
  }
}

function ofRecord(record) {
  const run = Run.ofRecord(record, () => {});
  if (run.status === 'failed') {
    readPrompt(run);
  } else if (!run.ended) {
    foreign.unshift(run); // the list has the newest first, which is the last to run
    queueMicrotask(followForeign);
  }
  return run;
}

// The server's list; where it gives none (a platform without keys), those that were begun here.
async function loadHistory() {
  await gallery.loadOlder(ofRecord);
  if (gallery.cards.size > active.length)
    return;
  for (const id of recall('mine', [])) {
    const answer = gallery.has(id) ? {status: 0} : await ask(taskPath(id));
    if (answer.status === 200)
      gallery.append(ofRecord(answer.json));
  }
}

// --- the server ------------------------------------------------------------------------------

// A front door has no ComfyUI to tell of.
function stateOf({status, json}) {
  if (status === 200)
    return 'ready';
  if (!json || !json.status)
    return 'unreachable';
  const {state} = json.comfyui || {};
  return {starting: 'starting', backoff: 'starting', gave_up: 'comfyui_gave_up'}[state] || 'notReady';
}

let readyTimer = null;
async function checkReady() {
  const answer = await ask('readyz');
  const state = stateOf(answer);
  const box = byId('state');
  if (box.dataset.state !== state) {
    box.dataset.state = state;
    box.textContent = t(state);
  }
  clearTimeout(readyTimer);
  if (state !== 'ready') {
    readyTimer = setTimeout(checkReady, READY_AGAIN_MS);
  } else if (workflow && !classesOf(workflow.prompt, panel.fields).every(name => info.knows(name))) {
    const mine = workflow;
    if (await info.load(classesOf(workflow.prompt, panel.fields)) && workflow === mine)
      redrawPanel();
  }
}

// --- the frame -------------------------------------------------------------------------------

function drawWords() {
  for (const element of document.querySelectorAll('[data-words]'))
    element.textContent = t(element.dataset.words);
  const isDark = document.documentElement.dataset.theme === 'dark';
  byId('tools').replaceChildren(
    button('code', t('developers'), () => workflow && showCode(presentPrompt(), info)),
    button(isDark ? 'sun' : 'moon', t(isDark ? 'toLight' : 'toDark'), () => {
      document.documentElement.dataset.theme = isDark ? 'light' : 'dark';
      remember('theme', isDark ? 'light' : 'dark');
      drawWords();
      byId('tools').querySelector('.theme').focus();
    }, {class: 'quiet theme'}),
    h('button', {type: 'button', class: 'quiet language', lang: currentLanguage() === 'zh' ? 'en' : 'zh-CN', onclick: changeLanguage},
      currentLanguage() === 'zh' ? 'English' : '中文'));
  byId('panel-tools').replaceChildren(button('download', t('exportSchema'), () => workflow && exportSchema()));
  byId('workflow-button').title = t('chooseWorkflow');
  if (byId('state').dataset.state)
    byId('state').textContent = t(byId('state').dataset.state);
}

function changeLanguage() {
  setLanguage(currentLanguage() === 'zh' ? 'en' : 'zh');
  remember('language', currentLanguage());
  drawWords();
  if (workflow)
    drawPanel(panel.values);
  gallery.words();
  bar.draw();
  byId('tools').querySelector('.language').focus();
}

async function takeDrop(transfer) {
  const file = transfer.files[0];
  const [control] = panel.pictures();
  if (!file && control && !chooser.isOpen)
    control.picture.takeFrom(transfer);
  else if (!file)
    return;
  else if (chooser.isOpen)
    await chooser.takeFile(file);
  else if (!file.type.startsWith('image/'))
    await chooser.take(() => readFile(file), null);
  else if (control)
    control.picture.take(file);
  else
    toast(t('noImageField'));
}

// Text that is moved to a field is the field's business.
const isTextDrop = ({target, dataTransfer}) =>
  !dataTransfer.types.includes('Files') && target.closest && target.closest('textarea, input') !== null;

function listen() {
  byId('workflow-button').addEventListener('click', () => chooser.open());
  byId('panel').addEventListener('submit', event => event.preventDefault());
  document.addEventListener('keydown', event => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.repeat && !document.querySelector('dialog[open]'))
      runAll(bar.count);
  });
  document.addEventListener('dragover', event => {
    if (!isTextDrop(event))
      event.preventDefault();
  });
  document.addEventListener('drop', event => {
    if (isTextDrop(event))
      return;
    event.preventDefault();
    takeDrop(event.dataTransfer);
  });
  byId('panel').addEventListener('compositionstart', () => {
    isComposing = true;
  });
  byId('panel').addEventListener('compositionend', () => {
    isComposing = false;
    if (isRedrawWanted)
      setTimeout(redrawPanel); // after the input event that brings the word
  });
  window.addEventListener('resize', soon(() => panel.grow()));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawWords);
  document.addEventListener('paste', event => {
    const controls = panel.pictures();
    const control = controls.find(one => one.box.contains(event.target)) || controls[0];
    if (control && !document.querySelector('dialog[open]') && event.clipboardData.files.length > 0 && control.picture.takeFrom(event.clipboardData))
      event.preventDefault();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden)
      checkReady();
  });
}

setLanguage(recall('language', navigator.language.startsWith('zh') ? 'zh' : 'en'));
drawWords();
gallery.words();
bar.draw();
listen();
checkReady();
openFirstWorkflow().then(showOverall);
resumeActive().then(loadHistory);
