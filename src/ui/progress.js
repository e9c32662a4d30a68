// How far a run is, from the node map {id: {max, value, start, last_updated}} and the graph. Nodes
// that step (samplers) weigh more; a node counts as done when something after it runs, because
// ComfyUI tells steps only while they are news.

const STEPS_PER_WEIGHT = 2;

function weightOf(node, info) {
  const steps = node.inputs.get('steps') || node.inputs.get('n');
  if (steps && steps.kind === 'number')
    return Math.max(4, Math.min(100, steps.value) / STEPS_PER_WEIGHT);
  return info.isOutput(node.type) ? 1 : 1.5;
}

export class Graph {
  constructor(prompt, info) {
    this.prompt = prompt;
    this.weights = new Map();
    this.after = new Map([...prompt.nodes.keys()].map(id => [id, []]));
    for (const node of prompt.nodes.values())
      for (const from of node.links.values())
        this.after.get(from).push(node.id);
    for (const id of this.needed(info))
      this.weights.set(id, weightOf(prompt.nodes.get(id), info));
  }

  // What an output hangs on; the rest never runs.
  needed(info) {
    const nodes = [...this.prompt.nodes.values()];
    const known = nodes.filter(node => info.isOutput(node.type));
    const ends = known.length > 0 ? known : nodes.filter(node => this.after.get(node.id).length === 0);
    const found = new Set();
    const queue = ends.map(node => node.id);
    while (queue.length > 0) {
      const id = queue.pop();
      if (found.has(id))
        continue;
      found.add(id);
      queue.push(...this.prompt.nodes.get(id).links.values());
    }
    return found;
  }

  isDone(id, nodes) {
    const node = nodes[id];
    if (node && node.max > 0 && node.value >= node.max)
      return true;
    return this.after.get(id).some(next => nodes[next] && nodes[next].max > 0);
  }

  // 0..1
  share(nodes) {
    let all = 0;
    let done = 0;
    for (const [id, weight] of this.weights) {
      const node = nodes[id] || {max: 0, value: 0};
      all += weight;
      if (this.isDone(id, nodes))
        done += weight;
      else if (node.max > 1)
        done += weight * node.value / node.max;
    }
    return all > 0 ? done / all : 0;
  }

  // The node at work: {title, value, max}, or null.
  current(nodes) {
    let found = null;
    for (const [id, node] of Object.entries(nodes)) {
      const at = this.prompt.nodes.get(id);
      if (!at || !(node.max > 0) || node.value >= node.max)
        continue;
      if (found === null || node.last_updated >= found.at)
        found = {title: at.title, value: node.value, max: node.max, at: node.last_updated};
    }
    return found;
  }
}
