// A field that takes a picture: by drop, paste, file, camera, name or address, or from those given.

import {upload, viewOf} from './api.js';
import {button, freshId, h, icon, toast} from './dom.js';
import {t} from './words.js';

const isAddress = name => /^https?:\/\//i.test(name);
const isData = name => name.startsWith('data:');

export class PictureInput {
  // given: names to choose from, or null. onchange: the value is another one.
  constructor({label, value, given, onchange}) {
    this.value = value;
    this.given = given;
    this.onchange = onchange;
    this.label = label;
    this.busy = null; // a promise while a file is on its way
    this.local = null; // what a file that was just chosen looks like
    this.build();
    this.show();
  }

  build() {
    const choose = picked => this.take(picked.target.files[0]);
    const files = h('input', {type: 'file', accept: 'image/*', hidden: true, onchange: choose, tabindex: -1});
    const camera = h('input', {type: 'file', accept: 'image/*', capture: 'environment', hidden: true, onchange: choose, tabindex: -1});
    this.view = h('div', {class: 'picture-view'});
    this.name = h('input', {
      type: 'text', id: freshId(), class: 'picture-name', placeholder: t('pictureName'), 'aria-label': `${this.label}: ${t('pictureName')}`,
      autocomplete: 'off', spellcheck: 'false', onchange: () => this.set(this.name.value.trim(), true),
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

  take(file) {
    if (!file)
      return;
    this.forgetLocal();
    this.local = URL.createObjectURL(file);
    this.root.setAttribute('aria-busy', 'true');
    const mine = upload(file).then(name => {
      if (this.busy === mine) {
        this.busy = null;
        this.set(name, true, true);
      }
    }, () => {
      if (this.busy === mine)
        this.busy = null;
      toast(t('loadFailed', {why: file.name}));
    }).finally(() => this.root.removeAttribute('aria-busy'));
    this.busy = mine;
    this.show();
  }

  forgetLocal() {
    if (this.local)
      URL.revokeObjectURL(this.local);
    this.local = null;
  }

  set(value, tell, keepLocal) {
    if (!keepLocal)
      this.forgetLocal();
    this.value = value;
    this.show();
    if (tell)
      this.onchange(value);
  }

  show() {
    const name = this.value;
    this.name.value = isData(name) ? '' : name;
    this.view.replaceChildren();
    const source = this.local || (isData(name) ? name : name !== '' && !isAddress(name) ? viewOf(name) : null);
    if (source === null) {
      this.view.append(icon('image'), h('span', {}, name === '' ? t('dropPicture') : t('noPreview')));
      return;
    }
    const picture = h('img', {src: source, alt: t('pictureHere')});
    picture.addEventListener('error', () => this.view.replaceChildren(icon('image'), h('span', {}, t('dropPicture'))));
    this.view.append(picture, button('close', `${this.label}: ${t('removePicture')}`, () => this.set('', true), {class: 'quiet picture-remove'}));
  }

  close() {
    this.busy = null;
    this.forgetLocal();
  }
}
