/**
 * Layers: what can be shown of a picture. A layer is written as `NAME`, `NAME:RUN`, and with
 * `@VERSION` behind it where it is of another version than the one that is browsed.
 */

const OF_RUNS = ["prediction", "error", "confidence"];
const TITLES = {
  photo: "Photo",
  truth: "Truth",
  prediction: "Prediction",
  error: "Errors",
  confidence: "Confidence",
  components: "Components",
  similarity: "Similarity",
};
const NOTES = { confidence: "yellow: certain", error: "red: wrong" };

/**
 * @typedef {Object} Layer
 * @property {string} text how it is written in the address
 * @property {string} name
 * @property {string} run key, empty where the layer is of no run
 * @property {string} version key
 * @property {string} title
 * @property {string} [note] how to read its colours
 * @property {boolean} [isAside] whether it stands below the others
 */

/**
 * The layers that there are, in the order in which they are offered.
 * @param {*} server the answer to `state`
 * @param {string} version key of the version that is browsed
 * @returns {Layer[]}
 */
export function availableLayers(server, version) {
  const own = layersOfVersion(server, version, version);
  const others = server.versions.filter((item) => item.key !== version);
  const foreign = others.flatMap((item) => layersOfVersion(server, item.key, version));
  const runs = server.runs.filter((run) => run.state !== "failed");
  const ofRuns = OF_RUNS.flatMap((name) => runs.map((run) => layerOfRun(server, name, run)));
  return [
    ...own.filter((layer) => layer.name !== "components"),
    ...ofRuns,
    ...own.filter((layer) => layer.name === "components"),
    ...foreign,
  ];
}

/**
 * The layers of the address that there are; those that suit where it names none.
 * @param {string} text separated by commas
 * @param {Layer[]} available
 * @param {*} server the answer to `state`
 * @param {string} mode side or one
 * @returns {Layer[]}
 */
export function chosenLayers(text, available, server, mode) {
  const named = text.split(",").map((part) => available.find((layer) => layer.text === part));
  const found = named.filter((layer) => layer !== undefined);
  const chosen = found.length > 0 ? found : defaultLayers(available, server);
  return mode === "one" ? chosen.slice(-1) : available.filter((layer) => chosen.includes(layer));
}

/**
 * What a tile of the list can show: one layer, or two side by side.
 * @param {Layer[]} available
 * @returns {Array<[string, string]>} as written in the address, and titles
 */
export function tileChoices(available) {
  const single = available.map((layer) => [layer.text, layer.title]);
  const pairs = [];
  for (const [index, left] of available.entries()) {
    for (const right of available.slice(index + 1)) {
      const isSame = left.name === right.name;
      const isTruthAndRun =
        left.name === "truth" && right.run !== "" && right.name !== "confidence";
      const isPhotoAndTruth = left.name === "photo" && right.text === "truth";
      if (isSame || isTruthAndRun || isPhotoAndTruth) {
        pairs.push([`${left.text},${right.text}`, `${left.title} | ${right.title}`]);
      }
    }
  }
  return [...single, ...pairs];
}

/**
 * The parts of a picture's address that name its layer.
 * @param {Layer} layer
 * @returns {{v: string, layer: string, r: string}}
 */
export function layerQuery(layer) {
  return { v: layer.version, layer: layer.name, r: layer.run };
}

/**
 * @param {*} server
 * @param {string} key
 * @returns {*} the version
 */
export function versionOf(server, key) {
  return server.versions.find((item) => item.key === key) ?? server.versions[0];
}

function defaultLayers(available, server) {
  const runs = server.runs.slice(0, 2);
  const wanted = ["photo", "truth", ...runs.map((run) => `prediction:${run.key}`)];
  if (server.runs.length === 1) wanted.push("error:0");
  if (server.runs.length === 0) {
    wanted.push(...available.filter((layer) => layer.name === "truth").map((layer) => layer.text));
    if (server.versions.length === 1) wanted.push("components");
  }
  return available.filter((layer) => wanted.includes(layer.text));
}

function layersOfVersion(server, key, browsed) {
  const version = versionOf(server, key);
  const names = version.has_photographs ? ["photo", "truth"] : ["truth"];
  return [...names, "components"].map((name) => ({
    text: key === browsed ? name : `${name}@${key}`,
    name,
    run: "",
    version: key,
    title: server.versions.length > 1 ? `${TITLES[name]} ${key.toUpperCase()}` : TITLES[name],
  }));
}

function layerOfRun(server, name, run) {
  const title = server.runs.length > 1 ? `${TITLES[name]} ${Number(run.key) + 1}` : TITLES[name];
  const note = NOTES[name];
  return { text: `${name}:${run.key}`, name, run: run.key, version: run.version, title, note };
}
