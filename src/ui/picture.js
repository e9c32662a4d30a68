// A field that takes a picture: by drop, paste, file, camera, name or address, or from those given.

import {upload, viewOf} from './api.js';
import {button, freshId, h, icon, toast} from './dom.js';
import {t} from './words.js';

const isAddress = name => /^https?:\/\//i.test(name);
// Base64 alone is a picture, too; a name has an ending.
const isBase64 = name => name.length >= 64 && /^[A-Za-z0-9+/]+={0,2}$/.test(name);
const isData = name => name.startsWith('data:') || isBase64(name);

export class PictureInput {
  // given: names to choose from, or null. onchange: the value is another one.
  constructor({label, value, given, onchange}) {
    this.value = value;
    this.given = given;
    this.onchange = onchange;
    this.label = label;
    this.sending = null; // {owner, done}: a file on its way
    this.local = null; // what a file that was just chosen looks like
    this.build();
    this.show();
  }

  build() {
    const choose = ({target}) => {
      this.take(target.files[0]);
      target.value = ''; // else the same file, chosen again, is no news
    };
    const files = h('input', {type: 'file', accept: 'image/*', hidden: true, onchange: choose, tabindex: -1});
    const camera = h('input', {type: 'file', accept: 'image/*', capture: 'environment', hidden: true, onchange: choose, tabindex: -1});
    this.view = h('div', {class: 'picture-view'});
    this.name = h('input', {
      type: 'text', id: freshId(), class: 'picture-name', placeholder: t('pictureName'), 'aria-label': `${this.label}: ${t('pictureName')}`,
      autocomplete: 'off', spellcheck: 'false', onchange: () => this.set(this.name.value.trim(), true),
      oninput: () => { // what is typed counts at once, and is looked for once it is all there
        this.sending = null;
        this.value = this.name.value.trim();
        this.onchange(this.value);
      },
    });
    this.root = h('div', {class: 'picture'},
      this.view,
      h('div', {class: 'picture-ways'},
        h('button', {type: 'button', class: 'small', 'aria-label': `${this.label}: ${t('chooseFile')}`, onclick: () => files.click()}, icon('image'), t('chooseFile')),
        h('button', {type: 'button', class: 'small camera', onclick: () => camera.click()}, icon('camera'), t('takePhoto')),
        this.name),
      this.given && this.given.length > 0 ? this.buildGiven() : null,
      files, camera);
    for (const [event, over] of [['dragenter', true], ['dragover', true], ['dragleave', false], ['drop', false]])
      this.root.addEventListener(event, happened => {
        happened.preventDefault();
        this.root.classList.toggle('over', over);
      });
    this.root.addEventListener('drop', happened => {
      happened.stopPropagation();
      this.takeFrom(happened.dataTransfer);
    });
  }

  // A few as pictures, many as a list.
  buildGiven() {
    if (this.given.length > 12) {
      const select = h('select', {'aria-label': `${this.label}: ${t('givenPictures')}`, onchange: () => this.set(select.value, true)},
        h('option', {value: ''}, `${t('givenPictures')}…`), this.given.map(name => h('option', {value: name}, name)));
      return select;
    }
    return h('div', {class: 'given', role: 'group', 'aria-label': `${this.label}: ${t('givenPictures')}`},
      this.given.map(name => h('button', {type: 'button', class: 'given-one', title: name, 'aria-label': name, onclick: () => this.set(name, true)},
        isAddress(name) ? icon('image') : h('img', {src: viewOf(name), alt: '', loading: 'lazy', onerror: event => event.target.replaceWith(icon('image'))}))));
  }

  takeFrom(transfer) {
    const file = [...transfer.files].find(one => one.type.startsWith('image/'));
    const address = transfer.getData('text/uri-list') || transfer.getData('text/plain');
    if (file)
      this.take(file);
    else if (isAddress(address))
      this.set(address.split('\n')[0].trim(), true);
    return Boolean(file);
  }

  get busy() {
    return this.sending && this.sending.done;
  }

  take(file) {
    if (!file)
      return;
    this.forgetLocal();
    this.local = URL.createObjectURL(file);
    const sending = {owner: this};
    sending.done = upload(file).then(name => sending.owner.arrive(sending, name), () => {
      toast(t('loadFailed', {why: file.name}));
      sending.owner.arrive(sending, '', false);
    });
    this.sending = sending;
    this.show();
  }

  // What has been chosen meanwhile, by hand or as another file, stays.
  arrive(sending, name, keepLocal = true) {
    if (this.sending === sending)
      this.set(name, true, keepLocal);
  }

  // Drawn anew: what was on its way to the other comes here.
  takeOver(other) {
    if (!other.sending)
      return;
    this.sending = other.sending;
    this.sending.owner = this;
    this.local = other.local;
    other.sending = other.local = null;
    this.show();
  }

  forgetLocal() {
    if (this.local)
      URL.revokeObjectURL(this.local);
    this.local = null;
  }

  set(value, tell, keepLocal) {
    this.sending = null;
    if (!keepLocal)
      this.forgetLocal();
    this.value = value;
    this.show();
    if (tell)
      this.onchange(value);
  }

  show() {
    const name = this.value;
    this.root.setAttribute('aria-busy', String(this.sending !== null));
    this.name.value = isData(name) ? '' : name;
    this.view.replaceChildren();
    const source = this.local || (isData(name) ? (isBase64(name) ? `data:image/png;base64,${name}` : name) : name !== '' && !isAddress(name) ? viewOf(name) : null);
    if (source === null) {
      this.view.append(icon('image'), h('span', {}, name === '' ? t('dropPicture') : t('noPreview')));
      return;
    }
    const picture = h('img', {src: source, alt: t('pictureHere')});
    picture.addEventListener('error', () => this.view.replaceChildren(icon('image'), h('span', {}, t('dropPicture'))));
    this.view.append(picture, button('close', `${this.label}: ${t('removePicture')}`, () => this.set('', true), {class: 'quiet picture-remove'}));
  }

  close() {
    this.sending = null;
    this.forgetLocal();
  }
}
