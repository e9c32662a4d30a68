// The call that the panel would make, to be made from elsewhere: exactly this prompt, byte for byte.

import {ask, origin} from './api.js';
import {button, copyText, h, icon, openDialog, toast} from './dom.js';
import {pretty} from './json.js';
import {t} from './words.js';

// What comes back is the first such file, or JSON where no node of that kind ends the graph.
function kindOf(prompt, info) {
  const fed = new Set([...prompt.nodes.values()].flatMap(node => [...node.links.values()]));
  const ends = [...prompt.nodes.values()].filter(node => !fed.has(node.id) || info.isOutput(node.type)).map(node => node.type);
  for (const [kind, file] of [['image', 'result.png'], ['video', 'result.mp4'], ['audio', 'result.wav']])
    if (ends.some(type => new RegExp(kind, 'i').test(type)))
      return {accept: `${kind}/*`, file};
  return {accept: 'application/json', file: 'result.json'};
}

const CALLS = {
  curl: (text, {accept, file}, hasKey) => {
    const end = text.includes('\nEND\n') ? 'END_OF_PROMPT' : 'END';
    return `curl --fail-with-body -o ${file} -H 'Accept: ${accept}' ${hasKey ? '-H "x-api-key: $API_KEY" ' : ''}\\
  --data-binary @- '${origin}/api/run' <<'${end}'
${text}
${end}`;
  },

  JavaScript: (text, {accept, file}, hasKey) => {
    const isRaw = !/`|\$\{/.test(text);
    const prompt = isRaw ? `String.raw\`${text}\`` : JSON.stringify(text);
    const headers = [`accept: '${accept}'`, ...(hasKey ? ["'x-api-key': process.env.API_KEY"] : [])].join(', ');
    return `import {writeFile} from 'node:fs/promises';

const prompt = ${prompt};

const answer = await fetch('${origin}/api/run', {method: 'POST', body: prompt, headers: {${headers}}});
if (!answer.ok)
  throw new Error((await answer.json()).error.detail);
await writeFile('${file}', Buffer.from(await answer.arrayBuffer()));`;
  },

  Python: (text, {accept, file}, hasKey) => {
    const prompt = text.includes('"""') || text.includes("'''") ? JSON.stringify(text) : `r'''${text}'''`;
    const headers = [`"Accept": "${accept}"`, ...(hasKey ? ['"x-api-key": os.environ["API_KEY"]'] : [])].join(', ');
    return `${hasKey ? 'import os\n' : ''}import urllib.request

prompt = ${prompt}

request = urllib.request.Request("${origin}/api/run", prompt.encode(), {${headers}})
with urllib.request.urlopen(request) as answer, open("${file}", "wb") as file:
    file.write(answer.read())`;
  },
};

let language = 'curl';

export async function showCode(prompt, info) {
  // Our own calls carry a cookie; one without tells whether others need a key.
  const hasKey = (await ask('api/openapi.json', {credentials: 'omit'})).status === 401;
  const kind = kindOf(prompt, info);
  const text = pretty(prompt.text);
  const code = h('code', {});
  const box = h('pre', {class: 'code', tabindex: 0, 'aria-labelledby': 'code-hint'}, code);
  const tabs = h('div', {class: 'tabs', role: 'group', 'aria-label': t('language')});
  const show = name => {
    language = name;
    code.textContent = CALLS[name](text, kind, hasKey);
    for (const tab of tabs.children)
      tab.setAttribute('aria-pressed', String(tab.textContent === name));
  };
  tabs.append(...Object.keys(CALLS).map(name => h('button', {type: 'button', class: 'tab', onclick: () => show(name)}, name)));
  const dialog = openDialog({class: 'drawer', 'aria-labelledby': 'code-title'},
    h('div', {class: 'drawer-top'}, h('h2', {id: 'code-title'}, t('developers')), button('close', t('close'), () => dialog.close())),
    h('p', {class: 'hint', id: 'code-hint'}, t('codeHint'), hasKey ? ` ${t('codeKey')}` : ''),
    h('div', {class: 'row'}, tabs, h('button', {
      type: 'button', class: 'small', onclick: async () => {
        await copyText(code.textContent);
        toast(t('copied'));
      },
    }, icon('copy'), t('copy'))),
    box,
    h('p', {class: 'hint'}, h('a', {href: `${origin}/api/openapi.json`, target: '_blank', rel: 'noopener'}, 'OpenAPI')));
  show(language);
}
