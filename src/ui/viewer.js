// One picture as large as the window allows, with its neighbours a key away; and two of them, one
// above the other.

import {address} from './api.js';
import {button, h, icon, openDialog, toast} from './dom.js';
import {t} from './words.js';

const source = output => address(output.url.replace(/^\//, ''));

// all: [{output, run}]; actions: {useAsInput, useSettings, compare}.
export function viewPictures(all, index, actions) {
  const stage = h('div', {class: 'viewer-stage'});
  const name = h('p', {class: 'viewer-name', 'aria-live': 'polite'});
  const bar = h('div', {class: 'viewer-actions'});
  const go = by => {
    index = (index + by + all.length) % all.length;
    show();
  };
  const act = work => () => {
    dialog.close();
    work();
  };
  const show = () => {
    const {output, run} = all[index];
    const isVideo = output.media_type.startsWith('video/');
    stage.replaceChildren(isVideo
      ? h('video', {src: source(output), controls: true, autoplay: true, loop: true})
      : h('img', {src: source(output), alt: output.filename, onerror: event => event.target.replaceWith(h('p', {}, t('outputGone')))}));
    name.textContent = [run.title, output.filename, ...run.seeds.slice(0, 1).map(seed => t('seed', {n: seed.text})), `${index + 1} / ${all.length}`]
      .filter(Boolean).join(' · ');
    bar.replaceChildren(
      isVideo ? '' : h('button', {type: 'button', class: 'small', onclick: act(() => actions.useAsInput(output))}, icon('input'), t('useAsInput')),
      isVideo ? '' : h('button', {type: 'button', class: 'small', onclick: act(() => actions.compare(output))}, icon('compare'), t('compare')),
      h('button', {type: 'button', class: 'small', onclick: act(() => actions.useSettings(run))}, icon('copy'), t('copyParameters')),
      h('a', {class: 'small', href: source(output), download: output.filename}, icon('download'), t('download')));
  };
  const dialog = openDialog({class: 'viewer', 'aria-label': t('results')},
    h('div', {class: 'viewer-top'}, name, button('close', t('close'), () => dialog.close())),
    h('div', {class: 'viewer-middle'},
      button('left', t('previous'), () => go(-1), {class: 'quiet', hidden: all.length < 2}), stage,
      button('right', t('next'), () => go(1), {class: 'quiet', hidden: all.length < 2})),
    bar);
  dialog.addEventListener('keydown', event => {
    if (event.key === 'ArrowLeft' && event.target.tagName !== 'VIDEO')
      go(-1);
    else if (event.key === 'ArrowRight' && event.target.tagName !== 'VIDEO')
      go(1);
  });
  show();
}

let waiting = null;

// The first call remembers, the second one shows both.
export function comparePicture(output) {
  if (waiting === null || waiting.url === output.url) {
    waiting = output;
    toast(t('compareOther'));
    return;
  }
  const first = waiting;
  waiting = null;
  const top = h('img', {src: source(first), alt: first.filename, class: 'compare-top'});
  const line = h('div', {class: 'compare-line'});
  const slide = () => {
    top.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
  };
  const slider = h('input', {type: 'range', min: 0, max: 100, step: 'any', value: '50', 'aria-label': t('compareSlider'), oninput: slide});
  const dialog = openDialog({class: 'viewer', 'aria-label': t('comparison')},
    h('div', {class: 'viewer-top'}, h('p', {class: 'viewer-name'}, `${first.filename} | ${output.filename}`), button('close', t('close'), () => dialog.close())),
    h('div', {class: 'viewer-middle'}, h('div', {class: 'compare'}, h('img', {src: source(output), alt: output.filename}), top, line)),
    h('div', {class: 'viewer-actions'}, slider));
  slide();
}
