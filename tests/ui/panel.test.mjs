// The panel: from schemas of old, from `_meta.edit`, from nothing; and that what is sent is what was
// there, but for what was changed.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import {after, before, test} from 'node:test';
import {PIXEL, World, card, documentFile, ended, fieldLabels, openFile, openPrompt, openWorkflow, run, until} from './world.mjs';

let world;
before(async () => {
  world = await World.start();
});
after(() => world.close());

const field = (page, key) => page.locator(`[data-field="${key}"]`);

test('a document of the older panel: five types, choices of ComfyUI, hidden inputs', async () => {
  await world.putPicture('given_a.png');
  await world.putPicture('given_b.png');
  const page = await world.page();
  await openWorkflow(page, documentFile('older.json'), 'Fünf Arten');
  assert.deepEqual(await fieldLabels(page), ['Beschreibung', 'Vorlage', 'Verfahren', 'Takt', 'Anzahl', 'Schritte', 'Treue', 'Zufall', 'Breite', 'Höhe', 'Leer']);
  assert.equal(await page.getByText('Was zu sehen sein soll').isVisible(), true);
  const info = (await world.ask('/object_info/KSampler')).json().KSampler.input.required;
  assert.deepEqual(await page.getByLabel('Verfahren').locator('option').allTextContents(), info.sampler_name[0]);
  assert.deepEqual(await page.getByLabel('Takt').locator('option').allTextContents(), ['normal', 'karras']);
  assert.equal(await page.getByLabel('Treue').inputValue(), '0.0');
  assert.equal(await page.getByLabel('Leer').inputValue(), '');
  assert.equal(await page.getByLabel('Zufall', {exact: true}).inputValue(), '18446744073709551615');
  const slider = field(page, '5.steps').getByRole('slider');
  assert.equal(await slider.inputValue(), '4');
  await page.getByText('Größe').click();
  assert.equal(await page.getByLabel('Leer').isVisible(), false);

  // Nothing changed: byte for byte what is in the file.
  await run(page);
  await ended(page);
  const list = fs.readFileSync(documentFile('older.json'), 'utf8');
  const sent = await world.lastPrompt();
  const start = list.indexOf('"prompt": {') + '"prompt": '.length;
  assert.ok(sent.includes(list.slice(start, list.indexOf('\n    }\n  },') + '\n    }'.length)), sent);

  await page.getByText('Größe').click();
  await page.getByLabel('Verfahren').selectOption('heun');
  await page.getByLabel('Anzahl').selectOption('2');
  await page.getByLabel('Leer').fill('nicht "dies"\nund 中文');
  await slider.fill('7');
  assert.equal(await field(page, '5.steps').locator('input[type=number]').inputValue(), '7');
  await page.getByLabel('Treue').fill('0');
  await page.getByRole('button', {name: 'given_b.png'}).click();
  await run(page);
  await ended(page, 2);
  const prompt = JSON.parse(await world.lastPrompt()).prompt;
  assert.equal(prompt['5'].inputs.sampler_name, 'heun');
  assert.equal(prompt['4'].inputs.batch_size, 2);
  assert.equal(prompt['3'].inputs.text, 'nicht "dies"\nund 中文');
  assert.equal(prompt['5'].inputs.steps, 7);
  assert.equal(prompt['5'].inputs.cfg, 0);
  assert.equal(prompt['8'].inputs.image, 'given_b.png');
  assert.equal(prompt['7'].inputs.filename_prefix, 'hidden/older');
  assert.match(await world.lastPrompt(), /"seed": 18446744073709551615,/);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('the second of a list; a field that names no node', async () => {
  const page = await world.page();
  let answer;
  await page.route('**/api/workflows', route => { // which comes late, and is then of no interest
    answer = () => route.continue();
  });
  await page.locator('#workflow-button').click();
  await page.locator('.chooser input[type=file]').setInputFiles(documentFile('older.json'));
  await page.getByRole('button', {name: 'Fünf Arten'}).waitFor();
  await Promise.all([page.waitForResponse('**/api/workflows'), answer()]);
  await page.evaluate(() => new Promise(resolve => setTimeout(resolve, 50)));
  await page.getByRole('button', {name: 'Fünf Arten'}).click();
  await page.unroute('**/api/workflows');
  await openWorkflow(page, documentFile('older.json'), 'Zweites');
  assert.equal(await page.getByLabel('Ohne Knoten').inputValue(), 'hallo');
  await page.context().close();
});

test('`_meta.edit` in the prompt', async () => {
  const page = await world.page();
  await openWorkflow(page, documentFile('edit.json'));
  assert.deepEqual(await fieldLabels(page), ['How far', 'Seed', 'What is said']);
  await page.getByLabel('What is said').fill('there');
  await page.locator('[data-field="1.n"] input[type=number]').fill('3');
  await run(page);
  await ended(page);
  assert.equal(await card(page, 'succeeded').locator('pre.text').last().textContent(), 'there');
  await page.context().close();
});

test('without a schema the panel is proposed, and can be saved as one', async () => {
  const page = await world.page();
  const prompt = JSON.parse(fs.readFileSync(documentFile('older.json'), 'utf8'))[0].prompt;
  prompt['2']._meta = {title: 'What is seen'};
  await openPrompt(page, prompt);
  const labels = await fieldLabels(page);
  assert.deepEqual(labels.slice(0, 9), ['What is seen', 'Text', 'Seed', 'Steps', 'Width', 'Height', 'Pictures per run', 'Picture', 'Model']);
  await page.getByText('More settings').click();
  assert.ok((await fieldLabels(page)).includes('Sampler'));
  assert.equal(await page.getByLabel('Sampler').inputValue(), '"euler"');
  assert.equal(await page.getByLabel('Model').evaluate(select => select.tagName), 'SELECT');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', {name: 'Save this panel as a file'}).click()]);
  const saved = JSON.parse(fs.readFileSync(await download.path(), 'utf8'));
  assert.deepEqual(saved.params[0], {type: 'string', id: '2', key: 'text', title: 'What is seen'});
  await page.getByLabel('What is seen').fill('else');
  await openWorkflow(page, await download.path());
  assert.deepEqual((await fieldLabels(page)).slice(0, 9), labels.slice(0, 9));
  assert.equal(await page.getByLabel('What is seen').inputValue(), 'ein Leuchtturm');
  await page.context().close();
});

test('files that are no workflow are explained', async () => {
  const page = await world.page();
  const told = async text => {
    await page.locator('#workflow-button').click();
    await page.locator('.chooser input[type=file]').setInputFiles({name: 'x.json', mimeType: 'application/json', buffer: Buffer.from(text)});
    const words = await page.getByRole('alert').textContent();
    await page.keyboard.press('Escape');
    return words;
  };
  assert.match(await told('{"last_node_id": 1, "nodes": [], "links": []}'), /Export \(API\)/);
  assert.match(await told('{\n "a": ]}'), /line 2, column 7/);
  assert.match(await told('{"a": 1}'), /no workflow/);
  assert.match(await told(`{"a": "${'x'.repeat(17 << 20)}"}`), /more than 16 MB/);
  await page.route('**/api/workflows', route => route.fulfill({status: 503, body: ''}));
  await page.locator('#workflow-button').click();
  await page.getByText('The server’s list cannot be read at the moment.').waitFor();
  await page.keyboard.press('Escape');
  await page.context().close();
});

test('a picture that ComfyUI has saved is a workflow', async () => {
  const page = await world.page();
  const prompt = {1: {class_type: 'EmptyImage', inputs: {width: 16, height: 24, batch_size: 1, color: 7}}, 2: {class_type: 'SaveImage', inputs: {images: ['1', 0], filename_prefix: 'told'}}};
  await openPrompt(page, prompt);
  await run(page);
  await ended(page);
  const [download] = await Promise.all([page.waitForEvent('download'), card(page, 'succeeded').getByRole('link', {name: 'Download'}).click()]);
  await openPrompt(page, {1: {class_type: 'TestText', inputs: {text: 'another'}}});
  assert.equal(await page.getByLabel('Height').count(), 0);
  await page.locator('#workflow-button').click();
  await page.locator('.chooser input[type=file]').setInputFiles({name: 'told.png', mimeType: 'image/png', buffer: fs.readFileSync(await download.path())});
  await page.getByLabel('Height').waitFor();
  assert.equal(await page.getByLabel('Height').inputValue(), '24');
  await page.context().close();
});

test('a picture dropped on the page is the input', async () => {
  const page = await world.page();
  await page.locator('#workflow-button').click();
  await page.getByRole('button', {name: 'Repaint a picture'}).click();
  await page.getByLabel('What should be seen').waitFor();
  await field(page, '2.image').waitFor();
  await run(page);
  assert.equal(await page.getByText('Choose a picture first.').isVisible(), true);
  const transfer = await page.evaluateHandle(async data => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const made = new DataTransfer();
    made.items.add(new File([bytes], 'mine.png', {type: 'image/png'}));
    return made;
  }, PIXEL.toString('base64'));
  await page.dispatchEvent('.results', 'drop', {dataTransfer: transfer});
  await until('the name of the picture', async () => (await page.locator('.picture-name').inputValue()) === 'mine.png');
  const seen = page.locator('.picture-view img');
  await until('the picture to be shown', () => seen.evaluate(image => image.naturalWidth === 8));
  assert.equal(await page.getByText('Choose a picture first.').isVisible(), false);
  await run(page);
  await ended(page);
  assert.match(await world.lastPrompt(), /"image": "mine.png"/);
  const {uploads} = await world.standin('/standin/state');
  assert.ok(uploads.some(upload => upload.name === 'mine.png' && upload.bytes === PIXEL.length));

  // Pasted, too; and a text that is pasted is none of that.
  const paste = (selector, make) => page.locator(selector).evaluate((element, [data, kind]) => {
    const made = new DataTransfer();
    if (kind === 'file')
      made.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'pasted.png', {type: 'image/png'}));
    else
      made.setData('text/plain', 'https://example.com/x.png');
    element.dispatchEvent(new ClipboardEvent('paste', {clipboardData: made, bubbles: true, cancelable: true}));
  }, [PIXEL.toString('base64'), make]);
  await paste('body', 'file');
  await until('the pasted picture', async () => (await page.locator('.picture-name').inputValue()) === 'pasted.png');
  await paste('[data-field="4.text"] textarea', 'text');
  assert.equal(await page.locator('.picture-name').inputValue(), 'pasted.png');

  // And what came out is the next one's input.
  await card(page, 'succeeded').getByRole('button', {name: 'Use as input'}).click();
  await until('the result as input', async () => /^repainted/.test(await page.locator('.picture-name').inputValue()));
  await page.context().close();
});

test('the last workflow and its values are there again', async () => {
  const page = await world.page();
  await openFile(page, documentFile('edit.json'));
  await page.getByLabel('What is said').fill('remembered');
  await page.waitForFunction(() => localStorage.getItem('comfy-agent.workflow').includes('remembered'));
  await page.reload();
  await page.getByLabel('What is said').waitFor();
  assert.equal(await page.getByLabel('What is said').inputValue(), 'remembered');
  assert.equal(await page.locator('#workflow-button').textContent(), 'edit');
  await page.context().close();
});

test('what is run is what the panel shows, also while another workflow is on its way', async () => {
  const page = await world.page();
  await openPrompt(page, {1: {class_type: 'TestText', inputs: {text: 'of the first'}}}, 'first');
  let answer;
  await page.route('**/object_info/**', route => {
    answer = () => route.continue();
  });
  await page.locator('#workflow-button').click();
  await page.locator('.chooser input[type=file]').setInputFiles({
    name: 'second.json', mimeType: 'application/json', buffer: Buffer.from(JSON.stringify({1: {class_type: 'TestRaise', inputs: {message: 'no', kind: 'RuntimeError'}}})),
  });
  await page.locator('.chooser').waitFor({state: 'detached'});
  await run(page);
  await ended(page);
  assert.deepEqual(JSON.parse(await world.lastPrompt()).prompt, {1: {class_type: 'TestText', inputs: {text: 'of the first'}}});
  await until('the question', () => answer);
  answer();
  await page.locator('#workflow-button').getByText('second').waitFor();
  await page.context().close();
});

test('what was not touched is the server’s, as it is now', async () => {
  const page = await world.page();
  const file = hidden => ({
    title: 'kept', params: [
      {type: 'string', id: '1', key: 'text', title: 'Words'},
      {type: 'string', id: '2', key: 'text', title: 'More words'},
      {type: 'string', id: '3', key: 'text', title: 'Not to be seen', hidden: true},
    ],
    prompt: Object.fromEntries([['1', 'a'], ['2', `b ${hidden}`], ['3', hidden]].map(([id, text]) => [id, {class_type: 'TestText', inputs: {text}}])),
  });
  let now = file('old');
  await page.route('**/api/workflows', route => route.fulfill({json: {workflows: [{name: 'kept'}]}}));
  await page.route('**/api/workflows/kept', route => (now ? route.fulfill({json: now}) : route.fulfill({status: 503, body: ''})));
  await page.locator('#workflow-button').click();
  await page.getByRole('button', {name: 'kept'}).click();
  await page.getByLabel('Words', {exact: true}).fill('mine');
  await page.waitForFunction(() => localStorage.getItem('comfy-agent.workflow').includes('mine'));
  now = file('new');
  await page.reload();
  await page.getByLabel('More words').waitFor();
  assert.equal(await page.getByLabel('Words', {exact: true}).inputValue(), 'mine');
  assert.equal(await page.getByLabel('More words').inputValue(), 'b new');
  await run(page);
  await ended(page);
  assert.equal(JSON.parse(await world.lastPrompt()).prompt['3'].inputs.text, 'new');
  now = null; // the directory does not answer: as it was
  await page.reload();
  await page.getByLabel('More words').waitFor();
  assert.equal(await page.getByLabel('Words', {exact: true}).inputValue(), 'mine');
  await page.context().close();
});

test('a picture on its way arrives, unless another was chosen meanwhile', async () => {
  await world.putPicture('given_a.png');
  await world.putPicture('given_b.png');
  const page = await world.page();
  await openWorkflow(page, documentFile('older.json'), 'Fünf Arten');
  let answer;
  const question = () => page.route('**/upload/image', route => {
    answer = () => route.continue();
  }, {times: 1});
  const choose = name => field(page, '8.image').locator('input[type=file]').first().setInputFiles({name, mimeType: 'image/png', buffer: PIXEL});
  const name = page.locator('.picture-name');
  await question();
  await choose('slow_one.png');
  await until('the upload', () => answer);
  await page.getByRole('button', {name: '中文'}).click(); // all fields are drawn anew
  answer();
  await until('the picture', async () => (await name.inputValue()) === 'slow_one.png');
  await page.getByRole('button', {name: 'English'}).click();
  answer = null;
  await question();
  await choose('slow_two.png');
  await until('the upload', () => answer);
  await page.getByRole('button', {name: 'given_b.png'}).click();
  await Promise.all([page.waitForResponse('**/upload/image'), answer()]);
  await page.locator('.picture[aria-busy=false]').waitFor();
  await page.evaluate(() => new Promise(resolve => setTimeout(resolve, 50)));
  assert.equal(await name.inputValue(), 'given_b.png');
  await choose('given_c.png'); // removed, and chosen once more
  await until('the picture', async () => (await name.inputValue()) === 'given_c.png');
  await field(page, '8.image').getByRole('button', {name: 'Remove the picture'}).click();
  assert.equal(await name.inputValue(), '');
  await choose('given_c.png');
  await until('the picture again', async () => (await name.inputValue()) === 'given_c.png');
  // A name that is still being typed counts, too.
  await name.fill('given_a.png');
  await name.press('Control+Enter');
  await ended(page);
  assert.equal(JSON.parse(await world.lastPrompt()).prompt['8'].inputs.image, 'given_a.png');
  await page.context().close();
});

test('drawn anew, the panel keeps what is folded, marked and being written', async () => {
  const page = await world.page();
  await page.route('**/object_info/**', route => route.fulfill({status: 502, body: ''}));
  const words = 'a first line\nand a second one\nand a third';
  await openPrompt(page, {
    title: 'anew', params: [
      {type: 'string', id: '1', key: 'text', title: 'Words'},
      {type: 'image', id: '2', key: 'image', title: 'Seen'},
      {type: 'group', key: 'g', title: 'Folded', description: 'What is rarely set', children: [{type: 'string', id: '3', key: 'text', title: 'Inside'}]},
    ], prompt: {
      1: {class_type: 'TestText', inputs: {text: 'one two'}},
      2: {class_type: 'LoadImage', inputs: {image: ''}},
      3: {class_type: 'TestText', inputs: {text: words}},
      4: {class_type: 'PreviewImage', inputs: {images: ['2', 0]}},
    },
  }, 'anew');
  await page.getByText('Folded').click();
  await run(page);
  await page.getByText('Choose a picture first.').waitFor();
  await page.unroute('**/object_info/**');
  await page.evaluate(() => {
    const box = document.querySelector('[data-field="1.text"]');
    box.dataset.before = '1';
    box.querySelector('textarea').focus();
    box.querySelector('textarea').setSelectionRange(3, 3);
    document.dispatchEvent(new Event('visibilitychange')); // looked at again, it asks what it could not know
  });
  await page.locator('[data-before]').waitFor({state: 'detached'});
  assert.equal(await page.evaluate(() => document.activeElement.selectionStart), 3);
  await page.getByRole('button', {name: '中文'}).click();
  assert.equal(await page.getByLabel('Inside').isVisible(), false);
  assert.equal(await field(page, '2.image').locator('.field-note').isVisible(), true);
  await page.getByRole('button', {name: 'English'}).click();
  await page.getByText('Folded').click();
  assert.equal(await page.getByLabel('Inside').evaluate(area => area.scrollHeight <= area.clientHeight), true);
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', {name: 'Save this panel as a file'}).click()]);
  const {params} = JSON.parse(fs.readFileSync(await download.path(), 'utf8'));
  assert.equal(params[2].description, 'What is rarely set');
  await page.context().close();
});

test('numbers as people write them, inputs that were not there, sliders of fractions', async () => {
  const page = await world.page();
  await openPrompt(page, {
    title: 'numbers', params: [
      {type: 'number', id: '1', key: 'value', title: 'Half', min: 0, max: 1},
      {type: 'string', id: '2', key: 'text', title: 'New'},
      {type: 'string', id: '2', key: 'other', title: 'Newer'},
    ], prompt: {1: {class_type: 'TestEcho', inputs: {value: 0.75}}, 2: {class_type: 'TestText', inputs: {}}},
  }, 'numbers');
  assert.equal(await field(page, '1.value').getByRole('slider').inputValue(), '0.75');
  await field(page, '1.value').locator('input[type=number]').fill('.5');
  await page.getByLabel('New', {exact: true}).fill('a');
  await page.getByLabel('Newer').fill('b');
  await run(page);
  await ended(page);
  const sent = JSON.parse(await world.lastPrompt()).prompt;
  assert.equal(sent['1'].inputs.value, 0.5);
  assert.deepEqual(sent['2'].inputs, {text: 'a', other: 'b'});
  await page.context().close();
});

test('what a browser cannot keep is not replaced by something older', async () => {
  const page = await world.page();
  await openPrompt(page, {1: {class_type: 'TestText', inputs: {text: 'small'}}}, 'small');
  await page.waitForFunction(() => localStorage.getItem('comfy-agent.workflow').includes('small'));
  await openPrompt(page, {1: {class_type: 'TestText', inputs: {text: 'x'.repeat(6000000)}, _meta: {edit: []}}}, 'large');
  await page.waitForFunction(() => localStorage.getItem('comfy-agent.workflow') === null);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('what is hidden stays hidden, and as it was', async () => {
  const page = await world.page();
  await openPrompt(page, {title: 'hidden', params: [
    {type: 'number', id: '1', key: 'n', title: 'How far'}, {type: 'number', id: '1', key: 'seed', title: 'Not seen', hidden: true},
  ], prompt: {1: {class_type: 'TestSteps', inputs: {n: 2, ms: 1, seed: -1}}}}, 'hidden');
  await run(page);
  await ended(page);
  const drawn = await card(page, 'succeeded').locator('.seed').textContent();
  await page.getByLabel('How far').fill('3');
  await card(page, 'succeeded').locator('.seed').click();
  await page.getByText('This panel has no such field').waitFor();
  await card(page, 'succeeded').getByRole('button', {name: 'Use these settings'}).click();
  await page.getByText('Settings taken over.').waitFor();
  assert.equal(await page.getByLabel('How far').inputValue(), '2');
  await run(page);
  await ended(page, 2);
  assert.notEqual(await card(page, 'succeeded').locator('.seed').textContent(), drawn);
  await page.context().close();
});

test('of a very large workflow what comes first is shown, the rest is folded', async () => {
  const page = await world.page();
  const prompt = Object.fromEntries(Array.from({length: 300}, (unused, n) => [n + 1, {class_type: 'TestText', inputs: {text: `text ${n + 1}`}}]));
  await openPrompt(page, prompt);
  assert.equal((await fieldLabels(page)).length, 80);
  await page.getByText('More settings').click();
  await page.locator('[data-field="300.text"] textarea').fill('the last');
  await run(page);
  await ended(page);
  assert.equal(JSON.parse(await world.lastPrompt()).prompt['300'].inputs.text, 'the last');
  await page.context().close();
});
