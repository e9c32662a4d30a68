// The panel: one control for each field, and what they say as edits of the prompt. Values are kept
// as JSON text, so that a number is what was typed: 7.0, 18446744073709551615.

import {button, freshId, h} from './dom.js';
import {PictureInput} from './picture.js';
import {leaves} from './schema.js';
import {hintOfInput, t} from './words.js';

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const SLIDER_STEPS_MAX = 4096;
const keyOf = (id, key) => `${id}\n${key}`;

// What people type, as JSON writes it: ".5", "05", "+3", "1."; null: no number.
function numberOf(typed) {
  const found = /^([+-]?)(\d*)(?:\.(\d*))?((?:[eE][+-]?\d+)?)$/.exec(typed);
  if (found === null || !(found[2] || found[3]))
    return null;
  const whole = found[2].replace(/^0+(?=\d)/, '') || '0';
  return `${found[1] === '-' ? '-' : ''}${whole}${found[3] ? `.${found[3]}` : ''}${found[4]}`;
}

// All at once: each height that is asked for between two changes lays out the whole page anew. What
// shrinks on the way must not scroll.
function growAreas(areas, scrolled) {
  const places = scrolled.map(box => [box, box.scrollTop]);
  for (const area of areas)
    area.style.height = 'auto';
  const heights = areas.map(area => area.scrollHeight);
  areas.forEach((area, n) => {
    area.style.height = `${heights[n] + 2}px`;
  });
  for (const [box, top] of places)
    if (box.scrollTop !== top)
      box.scrollTop = top;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// Numbers as they are written, texts as they read.
const shown = text => (text === undefined ? '' : NUMBER.test(text) ? text : String(parse(text) ?? ''));

export class Panel {
  constructor(root, {info, onchange}) {
    this.root = root;
    this.info = info;
    this.onchange = onchange;
    this.values = new Map(); // keyOf() → JSON text, of all fields that have a value
    this.controls = new Map(); // keyOf() → {field, box, input, note, set(text), picture (of an image)}
    this.marks = new Map(); // keyOf() → what is wrong there
    this.folds = new Map(); // number of a group → whether somebody has opened it
  }

  // Values that were set before stay, where the new prompt has such inputs.
  show(prompt, fields, values = new Map()) {
    const isAgain = prompt === this.prompt;
    this.prompt = prompt;
    if (!isAgain) {
      this.marks.clear();
      this.folds.clear();
    }
    this.fields = fields;
    this.values = new Map();
    for (const field of leaves(fields)) {
      const key = keyOf(field.id, field.key);
      const text = values.get(key) ?? prompt.textOf(field.id, field.key);
      if (text !== undefined && prompt.nodes.has(String(field.id)))
        this.values.set(key, text);
    }
    this.draw(isAgain);
  }

  // Drawn again, what is wrong stays marked, and pictures on their way arrive.
  draw(isAgain) {
    const before = this.controls;
    this.controls = new Map();
    this.groups = 0;
    const drawn = this.fields.map(field => this.drawField(field)).filter(Boolean);
    this.root.replaceChildren(...(drawn.length > 0 ? drawn : [h('p', {class: 'hint'}, t('noFields'))]));
    for (const [at, {picture}] of before) {
      const now = this.controls.get(at);
      if (isAgain && picture && now && now.picture)
        now.picture.takeOver(picture);
      if (picture)
        picture.close();
    }
    for (const [at, text] of this.marks)
      this.showMark(this.controls.get(at), text);
    this.grow();
  }

  grow() {
    this.growIn(this.root);
  }

  growIn(element) {
    growAreas([...element.querySelectorAll('textarea')].filter(area => !area.closest('details:not([open])')), [this.root, document.scrollingElement]);
  }

  drawField(field) {
    if (field.hidden || (field.type !== 'group' && !this.isUsable(field)))
      return null;
    if (field.type === 'group')
      return this.drawGroup(field);
    const control = {field, id: freshId()};
    const hint = field.description || hintOfInput(field.key);
    const build = {image: 'image', select: 'select', number: 'number', string: 'text'}[field.type];
    const hintId = `${control.id}-hint`;
    const noteId = `${control.id}-note`;
    control.describedBy = hint ? `${hintId} ${noteId}` : noteId;
    control.note = h('p', {class: 'field-note', id: noteId, hidden: true});
    const parts = this[`${build}Control`](control);
    control.box = h('div', {class: `field field-${field.type}`, 'data-field': `${field.id}.${field.key}`},
      field.type === 'image'
        ? h('span', {class: 'label'}, field.title)
        : h('label', {class: 'label', for: control.id}, field.title),
      parts, hint ? h('p', {class: 'hint', id: hintId}, hint) : null, control.note);
    this.controls.set(keyOf(field.id, field.key), control);
    return control.box;
  }

  // What another node feeds, or what no node has, is nothing to set.
  isUsable(field) {
    return this.prompt.nodes.has(String(field.id)) && !this.prompt.isLinked(field.id, field.key);
  }

  drawGroup(field) {
    const children = field.children.map(child => this.drawField(child)).filter(Boolean);
    if (children.length === 0)
      return null;
    const number = this.groups++;
    const group = h('details', {
      class: 'group', open: this.folds.get(number) ?? !field.folded, ontoggle: () => {
        this.folds.set(number, group.open);
        this.growIn(group); // what is folded has no height
      },
    }, h('summary', {}, field.title || t('moreSettings')), field.description ? h('p', {class: 'hint'}, field.description) : null, children);
    return group;
  }

  valueOf(field) {
    return this.values.get(keyOf(field.id, field.key));
  }

  change(control, text) {
    this.values.set(keyOf(control.field.id, control.field.key), text);
    this.unmark(control);
    this.onchange();
  }

  // --- the controls --------------------------------------------------------------------------

  textControl(control) {
    const area = h('textarea', {
      id: control.id, rows: 1, 'aria-describedby': control.describedBy, value: shown(this.valueOf(control.field)),
      oninput: () => {
        this.growIn(control.box);
        this.change(control, this.asWritten(control.field, area.value));
      },
    });
    control.input = area;
    control.set = text => {
      area.value = shown(text);
      this.growIn(control.box);
    };
    return [area];
  }

  // A text field on an input that is a number or a switch keeps its kind where it can.
  asWritten(field, text) {
    const before = this.prompt.input(field.id, field.key);
    const isOther = before && before.kind !== 'string' && (NUMBER.test(text) || text === 'true' || text === 'false');
    return isOther ? text : JSON.stringify(text);
  }

  numberControl(control) {
    const {field} = control;
    const isSeed = field.key === 'seed' || field.key === 'noise_seed';
    const write = text => this.change(control, numberOf(text) ?? JSON.stringify(text));
    const input = h('input', {
      type: 'number', id: control.id, step: field.step ?? 'any', min: field.min, max: field.max, autocomplete: 'off',
      'aria-describedby': control.describedBy, value: shown(this.valueOf(field)),
      oninput: () => {
        show();
        write(input.value);
      },
    });
    const slider = this.slider(control, input, write);
    const dice = isSeed && button('dice', `${field.title}: ${t('random')}`, () => {
      control.set('-1');
      write('-1');
    }, {class: 'quiet dice'});
    const random = isSeed && h('p', {class: 'hint random'}, t('randomNow'));
    const show = () => {
      if (slider)
        slider.value = input.value;
      if (random) {
        random.hidden = input.value !== '-1';
        dice.setAttribute('aria-pressed', String(input.value === '-1'));
      }
    };
    control.input = input;
    control.set = text => {
      input.value = shown(text);
      show();
    };
    show();
    return [h('div', {class: 'number'}, slider, input, dice), random];
  }

  slider(control, input, write) {
    const {field} = control;
    const step = field.step ?? this.stepOf(field);
    if (field.min === null || field.max === null || field.max <= field.min || (field.max - field.min) / step > SLIDER_STEPS_MAX)
      return null;
    const slider = h('input', {
      type: 'range', min: field.min, max: field.max, step, 'aria-label': field.title, 'aria-describedby': control.describedBy,
      oninput: () => {
        input.value = slider.value;
        write(slider.value);
      },
    });
    return slider;
  }

  // Where a schema has none: ComfyUI's own; else whole numbers move by one, others by less.
  stepOf(field) {
    const node = this.prompt.nodes.get(String(field.id));
    const {step} = (this.info.spec(node.type, field.key) || {options: {}}).options;
    if (typeof step === 'number' && step > 0)
      return step;
    const isWhole = Number.isInteger(field.min) && Number.isInteger(field.max) && field.max - field.min > 1 &&
      /^-?\d+$/.test(this.valueOf(field) ?? '0');
    return isWhole ? 1 : field.max - field.min > 2 ? 0.1 : 0.01;
  }

  // The value and the choices as JSON text: "512" among choices is 512 where the prompt has a number.
  selectControl(control) {
    const {field} = control;
    const before = this.prompt.input(field.id, field.key);
    const now = this.valueOf(field);
    const asText = option => {
      const isSame = typeof option === 'string' && before && before.kind !== 'string' && (NUMBER.test(option) || /^(true|false)$/.test(option));
      return isSame ? option : JSON.stringify(option);
    };
    const choices = this.choicesOf(field);
    const select = h('select', {
      id: control.id, 'aria-describedby': control.describedBy, onchange: () => this.change(control, select.value),
    }, (choices || []).map(option => h('option', {value: asText(option)}, String(option))));
    control.input = select;
    control.set = text => {
      const known = [...select.options].find(option => option.value === text || String(parse(option.value)) === shown(text));
      if (!known && text !== undefined)
        select.prepend(h('option', {value: text}, choices ? t('notThere', {value: shown(text)}) : shown(text)));
      select.value = known ? known.value : text ?? '';
    };
    control.set(now);
    return [h('div', {class: 'select'}, select), choices ? null : h('p', {class: 'hint'}, t('choicesMissing'))];
  }

  choicesOf(field) {
    if (field.options)
      return field.options;
    const own = field.type === 'select' ? this.prompt.nodes.get(String(field.id)).type : '';
    const found = this.info.spec(field.optionsOf || own, field.key);
    return found && found.choices;
  }

  imageControl(control) {
    const {field} = control;
    const given = this.choicesOf(field);
    const picture = new PictureInput({
      label: field.title, value: shown(this.valueOf(field)), given: given && given.map(String),
      onchange: value => this.change(control, JSON.stringify(value)),
    });
    picture.name.setAttribute('aria-describedby', control.describedBy);
    control.picture = picture;
    control.input = picture.name;
    control.set = text => picture.set(shown(text), false);
    return [picture.root];
  }

  // --- for others ----------------------------------------------------------------------------

  edits() {
    return [...this.values].map(([at, text]) => {
      const [id, key] = at.split('\n');
      return {id, key, text};
    }).filter(({id, key}) => !this.prompt.isLinked(id, key));
  }

  // Fields that somebody has set: [keyOf(), JSON text].
  changes() {
    return [...this.values].filter(([at, text]) => {
      const [id, key] = at.split('\n');
      return this.prompt.textOf(id, key) !== text;
    });
  }

  // Pictures that are on their way; others may set out meanwhile.
  async settled() {
    for (let busy; (busy = this.pictures().map(({picture}) => picture.busy).filter(Boolean)).length > 0;)
      await Promise.all(busy);
  }

  // False: there is no such field. (What is hidden stays: nobody could take that back.)
  set(id, key, text) {
    const control = this.controls.get(keyOf(id, key));
    if (!control)
      return false;
    control.set(text);
    this.change(control, text);
    return true;
  }

  // Values as another prompt of the same shape has them.
  copyFrom(prompt) {
    for (const {field: {id, key}} of this.controls.values()) {
      const text = prompt.textOf(id, key);
      if (text !== undefined && !prompt.isLinked(id, key))
        this.set(id, key, text);
    }
  }

  pictures() {
    return [...this.controls.values()].filter(control => control.picture);
  }

  // Fields without a picture: no node that takes one does without.
  emptyPictures() {
    return this.pictures().filter(control => control.picture.value === '').map(control => control.field);
  }

  titleOf(id, key) {
    const control = this.controls.get(keyOf(id, key));
    return control && control.field.title;
  }

  // --- faults at their fields ------------------------------------------------------------------

  // marks: [{id, key, text}]; the first that has a field is brought into view, unless somebody is
  // typing or looks at something else.
  mark(marks) {
    let first = null;
    for (const {id, key, text} of marks) {
      const control = this.controls.get(keyOf(id, key));
      if (!control)
        continue;
      this.marks.set(keyOf(id, key), text);
      this.showMark(control, text);
      for (let at = control.box.parentElement; at && at !== this.root; at = at.parentElement)
        if (at.tagName === 'DETAILS')
          at.open = true;
      first = first || control;
    }
    const isBusy = ['INPUT', 'TEXTAREA', 'SELECT'].includes(document.activeElement.tagName) || document.querySelector('dialog[open]');
    if (first && !isBusy)
      this.bring(first);
  }

  showMark(control, text) {
    if (!control)
      return;
    control.box.classList.add('wrong');
    control.input.setAttribute('aria-invalid', 'true');
    control.note.textContent = text;
    control.note.hidden = false;
  }

  bring(control) {
    control.box.scrollIntoView({block: 'nearest'});
    control.input.focus({preventScroll: true});
  }

  focus(id, key) {
    const control = this.controls.get(keyOf(id, key));
    if (control)
      this.bring(control);
  }

  unmark(control) {
    this.marks.delete(keyOf(control.field.id, control.field.key));
    control.box.classList.remove('wrong');
    control.input.removeAttribute('aria-invalid');
    control.note.hidden = true;
  }

  unmarkAll() {
    for (const control of this.controls.values())
      this.unmark(control);
  }
}
