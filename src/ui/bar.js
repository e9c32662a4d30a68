// The bar below the panel: how many, Run, and how far all of them are.

import {button, h, icon} from './dom.js';
import {recall, remember} from './store.js';
import {t} from './words.js';

const COUNT_MAX = 8;

export class RunBar {
  constructor(root, onrun) {
    this.root = root;
    this.onrun = onrun;
    this.count = Math.min(COUNT_MAX, Math.max(1, Number(recall('count', 1)) || 1));
    this.batch = []; // runs since the last time that none was under way
    this.draw();
  }

  draw() {
    this.number = h('output', {class: 'count', 'aria-live': 'polite'});
    this.fewer = button('minus', t('fewer'), () => this.setCount(this.count - 1));
    this.more = button('plus', t('more'), () => this.setCount(this.count + 1));
    this.label = h('span');
    this.go = h('button', {type: 'button', id: 'run', class: 'run', title: 'Ctrl+Enter', onclick: () => this.onrun(this.count)}, icon('play'), this.label);
    this.isBusy = false;
    this.fill = h('div', {class: 'fill'});
    this.bar = h('div', {class: 'bar', role: 'progressbar', 'aria-label': t('progress'), 'aria-valuemin': 0, 'aria-valuemax': 100}, this.fill);
    this.text = h('p', {class: 'state'});
    this.overall = h('div', {class: 'overall', hidden: true}, this.bar, this.text);
    this.root.replaceChildren(this.overall, h('div', {class: 'row'},
      h('div', {class: 'stepper', role: 'group', 'aria-label': t('howMany')}, this.fewer, this.number, this.more), this.go));
    this.setCount(this.count);
    this.update();
  }

  setCount(count) {
    this.count = Math.min(COUNT_MAX, Math.max(1, count));
    this.number.textContent = this.count;
    this.fewer.setAttribute('aria-disabled', String(this.count === 1)); // `disabled` would lose the focus
    this.more.setAttribute('aria-disabled', String(this.count === COUNT_MAX));
    this.label.textContent = this.count > 1 ? t('runMany', {n: this.count}) : t('run');
    remember('count', this.count);
  }

  // While pictures are on their way nothing can be run.
  setBusy(busy) {
    this.isBusy = busy;
    this.go.setAttribute('aria-disabled', String(busy));
    this.label.textContent = busy ? t('uploading') : this.count > 1 ? t('runMany', {n: this.count}) : t('run');
  }

  add(run) {
    if (this.batch.every(other => other.ended))
      this.batch = [];
    this.batch.push(run);
    this.update();
  }

  update() {
    const {batch} = this;
    const done = batch.filter(run => run.ended).length;
    const active = done < batch.length;
    this.overall.hidden = !active;
    const share = batch.reduce((sum, run) => sum + (run.ended ? 1 : run.share), 0) / (batch.length || 1);
    const percent = Math.floor(share * 100);
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute('aria-valuenow', percent);
    this.text.textContent = batch.length > 1 ? `${percent} % · ${t('someDone', {done, all: batch.length})}` : `${percent} %`;
    return active ? percent : null;
  }
}
