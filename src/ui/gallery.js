// Runs as cards, newest first: those under way, those that have ended, those of before.

import {address, ask, taskPath} from './api.js';
import {button, copyText, duration, h, icon, soon, toast} from './dom.js';
import {explain} from './errors.js';
import {currentLanguage, t} from './words.js';

const kindOf = output => (/^(image|video|audio|text)\//.exec(output.media_type || '') || [])[1] || 'file';
const isSeen = output => ['image', 'video'].includes(kindOf(output));
const TILES_MAX = 6;
const FILES_MAX = 24; // of other kinds
const TEXT_MAX = 64 * 1024; // bytes of a text file that is shown

const fileLink = output => h('a', {class: 'tile tile-wide tile-file', href: address(output.url.replace(/^\//, '')), download: output.filename},
  icon('file'), h('span', {}, output.filename));

function showText(output) {
  const box = h('pre', {class: 'text', tabindex: 0});
  ask(output.url.replace(/^\//, '')).then(answer => {
    box.textContent = answer.status === 200 ? answer.text : t(answer.status === 0 ? 'unreachable' : 'outputGone');
  });
  return box;
}

// One file of a run as what it is: one or two elements. onopen: a picture was clicked.
function show(output, onopen) {
  const source = address(output.url.replace(/^\//, ''));
  const kind = kindOf(output);
  const gone = h('p', {class: 'gone'}, t('outputGone'));
  const fail = event => event.target.closest('.tile').replaceChildren(gone);
  if (kind === 'image')
    return h('button', {type: 'button', class: 'tile', 'aria-label': t('open', {name: output.filename}), onclick: onopen},
      h('img', {src: source, alt: output.filename, loading: 'lazy', onerror: fail}));
  const asFile = event => event.target.closest('.tile').replaceWith(fileLink(output)); // of a kind that this browser cannot play
  if (kind === 'video')
    return h('div', {class: 'tile tile-wide'}, h('video', {
      src: source, controls: true, loop: true, playsinline: true, preload: 'metadata', 'aria-label': output.filename, onerror: asFile,
    }));
  if (kind === 'audio')
    return h('div', {class: 'tile tile-wide tile-audio'}, h('audio', {
      src: source, controls: true, preload: 'metadata', 'aria-label': output.filename, onerror: asFile,
    }));
  return kind === 'text' && output.size <= TEXT_MAX ? [showText(output), fileLink(output)] : fileLink(output);
}

class Card {
  constructor(run, gallery) {
    this.run = run;
    this.gallery = gallery;
    this.root = h('article', {class: 'card', 'data-task': run.id, tabindex: -1});
    this.drawn = null;
    this.update();
  }

  update() {
    const {run} = this;
    const kind = run.ended ? run.status : 'live';
    const shape = run.ended ? `${kind} ${run.status === 'failed' && run.prompt !== null} ${run.texts.length}` : kind;
    if (shape !== this.drawn) {
      const isFocused = this.root.contains(document.activeElement);
      this.drawn = shape;
      this.root.className = `card card-${kind}`;
      this.root.replaceChildren(...(run.ended ? this.drawEnd() : this.drawLive()));
      if (isFocused)
        this.root.focus({preventScroll: true});
    }
    if (!run.ended)
      this.updateLive();
  }

  drawLive() {
    this.image = h('img', {alt: t('preview'), hidden: true});
    this.state = h('p', {class: 'state'});
    this.time = h('span', {class: 'time'});
    this.fill = h('div', {class: 'fill'});
    this.bar = h('div', {class: 'bar', role: 'progressbar', 'aria-label': `${t('progress')}: ${this.run.title}`, 'aria-valuemin': 0, 'aria-valuemax': 100}, this.fill);
    this.stop = h('button', {type: 'button', class: 'small', onclick: () => this.cancel()}, icon('close'), h('span', {}, t('cancel')));
    const shot = h('div', {class: 'shot shot-live'}, this.image);
    if (this.run.shape) { // nothing moves when the picture comes
      shot.style.height = 'auto';
      shot.style.aspectRatio = this.run.shape;
    }
    return [
      shot,
      h('div', {class: 'live'}, this.bar, h('div', {class: 'row'}, this.state, this.time), this.stop),
    ];
  }

  updateLive() {
    const {run} = this;
    const percent = Math.floor(run.share * 100);
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute('aria-valuenow', percent);
    this.state.textContent = this.sentence();
    this.time.textContent = duration(run.elapsed);
    this.stop.setAttribute('aria-disabled', String(run.cancelling));
    this.stop.lastChild.textContent = t(run.cancelling ? 'cancelling' : 'cancel');
    this.root.classList.toggle('away', run.away !== null);
    if (run.preview && this.image.src !== run.preview)
      this.image.src = run.preview;
    this.image.hidden = !run.preview;
  }

  async cancel() {
    if (this.run.cancelling)
      return;
    const why = await this.run.cancel();
    if (why !== null)
      toast(t('cancelFailed', {why}));
  }

  sentence() {
    const {run} = this;
    if (run.away)
      return t(run.away);
    if (run.status === 'queued' && run.position !== null)
      return `${t('queued')} · ${run.position > 0 ? t('ahead', {n: run.position}) : t('nextUp')}`;
    const now = run.status === 'running' && run.graph && run.graph.current(run.nodes);
    if (!now)
      return t(run.status);
    return now.max > 1 ? `${now.title} · ${t('step', now)}` : now.title;
  }

  drawEnd() {
    const {run} = this;
    if (run.status === 'failed')
      return this.drawFailure();
    const seen = run.outputs.filter(isSeen);
    const tiles = seen.slice(0, TILES_MAX).map(output => show(output, () => this.gallery.view(output)));
    if (seen.length > TILES_MAX)
      tiles.push(h('button', {type: 'button', class: 'tile tile-more', onclick: () => this.gallery.view(seen[TILES_MAX])}, `+${seen.length - TILES_MAX}`));
    const files = run.outputs.filter(output => !isSeen(output));
    tiles.push(...files.slice(0, FILES_MAX).flatMap(output => show(output)));
    if (files.length > FILES_MAX)
      tiles.push(h('p', {class: 'gone tile-wide'}, `+${files.length - FILES_MAX}`));
    tiles.push(...run.texts.map(text => h('pre', {class: 'text', tabindex: 0}, text)));
    if (tiles.length === 0)
      tiles.push(h('p', {class: 'gone'}, run.status === 'cancelled' ? t('cancelled') : t('noOutput')));
    return [h('div', {class: `shot${tiles.length > 1 ? ' shot-many' : ''}`}, tiles), this.drawFoot()];
  }

  drawFoot() {
    const {run} = this;
    const first = run.outputs[0];
    const image = run.outputs.find(output => kindOf(output) === 'image');
    return h('div', {class: 'foot'},
      h('div', {class: 'about'},
        h('span', {class: 'title', title: run.title || run.id}, run.title || new Date(run.record ? run.record.created : Date.now()).toLocaleString(currentLanguage())),
        h('span', {class: 'time'}, duration(run.elapsed))),
      h('div', {class: 'actions'},
        run.seeds.slice(0, 1).map(seed => h('button', {
          type: 'button', class: 'seed', title: t('useSeed', {n: seed.text}), 'aria-label': t('useSeed', {n: seed.text}), onclick: () => this.gallery.useSeed(seed),
        }, icon('dice'), h('span', {}, seed.text))),
        h('span', {class: 'space'}),
        image ? button('compare', t('compare'), () => this.gallery.compare(image)) : null,
        image ? button('input', t('useAsInput'), () => this.gallery.useAsInput(image)) : null,
        button('copy', t('copyParameters'), () => this.gallery.useSettings(run)),
        first ? h('a', {class: 'quiet', href: address(first.url.slice(1)), download: first.filename, 'aria-label': t('download'), title: t('download')}, icon('download')) : null));
  }

  drawFailure() {
    const {run} = this;
    const {sentence, marks, details} = explain(run.error || {code: 'failed'}, run.prompt);
    return [
      h('div', {class: 'shot shot-failed'},
        h('p', {class: 'what'}, icon('warn'), h('span', {}, sentence)),
        marks.map(mark => {
          const title = this.gallery.fieldTitle(mark, run);
          const words = `${mark.where}${mark.key ? ` · ${title || mark.key}` : ''}: ${mark.text}`;
          return title
            ? h('button', {type: 'button', class: 'mark', title: t('atField', {title}), onclick: () => this.gallery.focusField(mark, run)}, words)
            : h('p', {class: 'mark'}, words);
        }),
        details ? h('details', {}, h('summary', {}, t('details')), h('pre', {tabindex: 0}, details)) : null),
      this.drawFoot(),
    ];
  }
}

export class Gallery {
  // hooks: view([{output, run}], index), compare, useAsInput, useSettings, useSeed, fieldTitle, focusField.
  constructor(root, hooks) {
    this.root = root;
    this.hooks = hooks;
    this.cards = new Map();
    this.cursor = null;
    this.unread = false; // there may be more, but the list is not to be had now
    this.empty = h('p', {class: 'hint empty'});
    this.olderButton = h('button', {type: 'button', class: 'small older', hidden: true, onclick: () => this.loadOlder()});
    this.list = h('div', {class: 'cards'});
    root.append(this.empty, this.list, this.olderButton);
    this.words();
    setInterval(() => this.tick(), 1000);
  }

  words() {
    this.empty.textContent = t(this.unread ? 'resultsUnread' : 'nothingYet');
    this.olderButton.textContent = t('olderResults');
    for (const card of this.cards.values()) {
      card.drawn = null;
      card.update();
    }
  }

  tick() {
    for (const card of this.cards.values())
      if (!card.run.ended)
        card.update();
  }

  make(run) {
    const card = new Card(run, this);
    const update = soon(() => card.update());
    const before = run.onchange;
    run.onchange = changed => {
      before(changed);
      update();
    };
    this.empty.hidden = true;
    return card;
  }

  // What was begun just now; the first, which runs first, stands first.
  prepend(runs) {
    const made = runs.map(run => [run.id, this.make(run)]);
    this.cards = new Map([...made, ...this.cards]);
    this.list.prepend(...made.map(([, card]) => card.root));
  }

  // What is older than all that is there. (By their place in the server's list; clocks differ.)
  append(run) {
    if (this.has(run.id))
      return;
    const card = this.make(run);
    this.cards.set(run.id, card);
    this.list.append(card.root);
  }

  has(id) {
    return this.cards.has(id);
  }

  // Pages of the server's own list; `ofRecord` makes a run of a record.
  async loadOlder(ofRecord = this.ofRecord) {
    this.ofRecord = ofRecord;
    const cursor = this.cursor ? `&cursor=${encodeURIComponent(this.cursor)}` : '';
    this.olderButton.disabled = true;
    const answer = await ask(`api/tasks?limit=24${cursor}`);
    this.olderButton.disabled = false;
    this.unread = answer.status === 0 || answer.status >= 500;
    this.empty.textContent = t(this.unread ? 'resultsUnread' : 'nothingYet');
    if (answer.status !== 200) {
      this.olderButton.hidden = !this.unread;
      return;
    }
    this.cursor = answer.json.cursor || null;
    this.olderButton.hidden = !this.cursor;
    const fresh = answer.json.tasks.filter(record => !this.has(record.id));
    for (const record of fresh)
      this.append(this.ofRecord(record));
    this.readTexts(fresh.filter(record => record.status === 'succeeded').map(record => record.id));
  }

  // The list is without node maps, where texts lie; one by one, because pictures come first.
  async readTexts(ids) {
    for (const id of ids) {
      const whole = await ask(taskPath(id));
      if (whole.status === 200)
        this.cards.get(id).run.take(whole.json);
    }
  }

  // All pictures and films as they stand in the gallery, for going through them.
  view(output) {
    const all = [...this.cards.values()].flatMap(card => card.run.outputs.filter(isSeen).map(one => ({output: one, run: card.run})));
    this.hooks.view(all, all.findIndex(({output: one}) => one.url === output.url));
  }

  compare(output) {
    this.hooks.compare(output);
  }

  useAsInput(output) {
    this.hooks.useAsInput(output);
  }

  useSettings(run) {
    this.hooks.useSettings(run);
  }

  async useSeed(seed) {
    if (this.hooks.useSeed(seed)) {
      toast(t('seedUsed'));
    } else {
      await copyText(seed.text);
      toast(t('noSeedField'));
    }
  }

  fieldTitle(mark, run) {
    return this.hooks.fieldTitle(mark, run);
  }

  focusField(mark, run) {
    this.hooks.focusField(mark, run);
  }
}
