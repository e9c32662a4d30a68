// What ComfyUI says of its node classes, asked for one by one: all of them are megabytes. While it
// starts, or where its paths are hidden, nothing is known and the page gets by without.

import {ask} from './api.js';

const IMAGE_NODES = {LoadImage: 'image', LoadImageMask: 'image', LoadImageOutput: 'image'};

export class NodeInfo {
  constructor() {
    this.classes = new Map();
  }

  // True: more is known than before.
  async load(names) {
    let isMore = false;
    const missing = [...new Set(names)].filter(name => !this.classes.get(name));
    await Promise.all(missing.map(async name => {
      const answer = await ask(`object_info/${encodeURIComponent(name)}`);
      const found = (answer.status === 200 && answer.json && answer.json[name]) || null;
      isMore = isMore || found !== null;
      this.classes.set(name, found);
    }));
    return isMore;
  }

  knows(name) {
    return Boolean(this.classes.get(name));
  }

  // {type, choices (or null), options: {min, max, step, multiline, image_upload, tooltip, …}}, or null.
  spec(name, key) {
    const input = (this.classes.get(name) || {}).input || {};
    for (const section of [input.required, input.optional]) {
      const found = section && section[key];
      if (!Array.isArray(found))
        continue;
      const options = found[1] && typeof found[1] === 'object' ? found[1] : {};
      const choices = Array.isArray(found[0]) ? found[0] : Array.isArray(options.options) ? options.options : null;
      return {type: choices ? 'COMBO' : String(found[0]), choices, options};
    }
    return null;
  }

  isImage(name, key) {
    const spec = this.spec(name, key);
    return spec ? spec.options.image_upload === true || IMAGE_NODES[name] === key : IMAGE_NODES[name] === key;
  }

  isOutput(name) {
    return (this.classes.get(name) || {}).output_node === true;
  }
}
