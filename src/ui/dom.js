// The page's whole framework: an element with its attributes, listeners and children.

const SVG = 'http://www.w3.org/2000/svg';

// Drawn on a grid of 24, in lines.
const ICONS = {
  play: 'M7 4.5v15l12-7.5z',
  stop: 'M6 6h12v12H6z',
  plus: 'M12 5v14M5 12h14',
  minus: 'M5 12h14',
  dice: 'M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01',
  image: 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01',
  camera: 'M4 8h3l2-3h6l2 3h3v11H4zM12 17a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  close: 'M6 6l12 12M18 6L6 18',
  left: 'M15 5l-7 7 7 7',
  right: 'M9 5l7 7-7 7',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  copy: 'M8 8h11v12H8zM5 16V4h11',
  input: 'M14 4h6v16h-6M4 12h11M11 8l4 4-4 4',
  compare: 'M12 3v18M4 6h5v12H4zM15 6h5v12h-5z',
  code: 'M8 7l-5 5 5 5M16 7l5 5-5 5',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19',
  moon: 'M20 14A8.5 8.5 0 0 1 10 4a8.5 8.5 0 1 0 10 10z',
  flow: 'M4 5h6v5H4zM14 14h6v5h-6zM10 7.5h4a3 3 0 0 1 3 3V14',
  down: 'M6 9l6 6 6-6',
  warn: 'M12 4l9 16H3zM12 10v4M12 17h.01',
  again: 'M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5',
};

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

// h('button', {class: 'x', onclick: f, 'aria-label': 'y', disabled: true}, 'text', child, …).
// What is null, false or undefined is left out.
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false)
      continue;
    if (name.startsWith('on'))
      element.addEventListener(name.slice(2), value);
    else if (name === 'value')
      element.value = value;
    else
      element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(name, label, onclick, attributes) {
  return h('button', {type: 'button', class: 'quiet', 'aria-label': label, title: label, onclick, ...attributes}, icon(name));
}

let ids = 0;
export function freshId() {
  return `e${++ids}`;
}

// Who changes a value many times in a turn is heard once, before the next frame. (Frames do not
// come while the page is hidden; a timer does.)
export function soon(work) {
  let due = false;
  return () => {
    if (due)
      return;
    due = true;
    const run = () => {
      due = false;
      work();
    };
    if (document.hidden)
      setTimeout(run, 250);
    else
      requestAnimationFrame(run);
  };
}

// Opened at once; a click beside it closes it, and closed it is gone.
export function openDialog(attributes, ...children) {
  const dialog = h('dialog', attributes, ...children);
  dialog.addEventListener('click', event => {
    const box = dialog.getBoundingClientRect();
    const isInside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (event.target === dialog && !isInside)
      dialog.close();
  });
  dialog.addEventListener('close', () => {
    document.body.append(document.getElementById('toast'));
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// In the dialog that is open, if one is: nothing outside of it is seen or read then.
let toastTimer;
export function toast(text) {
  const box = document.getElementById('toast');
  (document.querySelector('dialog[open]') || document.body).append(box);
  box.textContent = text;
  box.classList.add('shown');
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove('shown'), 5000);
}

// The clipboard's own interface exists on secure pages only; a NAS at home is none.
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // refused: the older way
    }
  }
  const area = h('textarea', {class: 'offscreen', value: text});
  (document.querySelector('dialog[open]') || document.body).append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = number => String(number).padStart(2, '0');
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}:${two(seconds % 60)}`
    : `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}
