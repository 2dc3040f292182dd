/** The viewer: one state in the address, and views that show it. */

import { ask, pause } from "./api.js";
import { ClassesView } from "./tables/classes.js";
import { ConfusionView } from "./tables/confusion.js";
import { fill, h, settled } from "./dom.js";
import { keys } from "./keys.js";
import { PicturesView } from "./list/pictures.js";
import { PictureView } from "./picture/picture.js";
import { Shell } from "./shell.js";
import { Store } from "./state.js";

const POLL = 1000; // milliseconds between questions while runs are being scored

const main = document.querySelector("#main");
const status = document.querySelector("#status");
const announce = settled(150, (text) => fill(status, text));

async function start() {
  let server;
  try {
    server = await ask("state");
  } catch (error) {
    fill(main, h("p", { class: "message", role: "alert" }, error.message));
    return;
  }
  const store = new Store(window);
  const context = { store, server: () => server, announce };
  const shell = new Shell(document.querySelector("#top"), context);
  const pictures = new PicturesView(context);
  const picture = new PictureView({ ...context, list: pictures.list });
  const views = {
    pictures,
    picture,
    classes: new ClassesView(context),
    confusion: new ConfusionView(context),
  };
  fill(
    main,
    Object.values(views).map((view) => view.element),
  );
  let shown = null;

  function show(state) {
    const name = state.id === "" ? state.view : "picture";
    const isOther = name !== shown;
    if (isOther && shown) views[shown].leave();
    for (const [key, view] of Object.entries(views)) view.element.hidden = key !== name;
    shell.show(state);
    pictures.list.aim(pictures.query(state));
    views[name].show(state, isOther, picture.position);
    if (isOther && shown) (views[name].focused ?? main).focus({ preventScroll: true });
    shown = name;
  }

  store.subscribe(show);
  followLinks(store);
  keys({ store, shell, picture, pictures, isOpen: () => shown === "picture" });
  show(store.current);
  await followWork(server, (next) => {
    const isNew = states(next) !== states(server);
    server = next;
    shell.show(store.current);
    if (!isNew) return;
    pictures.list.renew();
    if (shown === "picture") picture.reload();
    else views[shown].show(store.current, false);
  });
}

/** Let links within the page change the state instead of loading the page again. */
function followLinks(store) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="?"]');
    const isPlain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (!link || !isPlain || event.button !== 0) return;
    event.preventDefault();
    store.open(link.getAttribute("href"));
  });
}

/** Ask how far the work in the background is until all is done. */
async function followWork(server, changed) {
  let next = server;
  while (work(next).some(({ state }) => state !== "ready" && state !== "failed")) {
    const moves = work(next).some(({ state }) => state === "scoring" || state === "reading");
    await pause(moves ? POLL : 3 * POLL);
    try {
      next = await ask("state");
      changed(next);
    } catch (error) {
      announce(error.message);
      if (error.status === 0) return;
    }
  }
}

/** What the server computes in the background: the scores of runs, the classes of pictures. */
function work(server) {
  return [...server.runs, ...server.versions.map((version) => version.columns)];
}

function states(server) {
  return work(server)
    .map(({ state }) => state)
    .join();
}

await start();
