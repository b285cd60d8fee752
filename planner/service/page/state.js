// What the page knows: the API's last state, the decisions so far, and what is looked at.

export const at = {
  state: null,
  gotAt: 0, // the API's last answer, and when, by performance.now()
  rows: [], // summaries of decisions, oldest first; `t` is their unix time in ms
  complete: false, // whether the API had read its journal when `rows` were loaded
  zeroS: null, // planner seconds that elapsed ones count from
  spanS: 3600,
  zoom: null, // seconds shown, up to now; or [from, to] in unix ms
  selected: null,
  opener: null, // id of the decision in the panel, and what had the focus before
  silentSince: Date.now(),
  cause: "",
};

export const speedUp = () => at.state?.clock.speed_up ?? 1;

export const activeErrors = () => Object.entries(at.state.errors ?? {}).filter(([, fault]) => fault.active);

/** GPUs of a supply by pool: ready, starting and draining workers hold them. */
export const gpusHeld = pools =>
  at.state.settings.pools.reduce(
    (sum, {name, gpus_per_worker: gpus}) =>
      sum + (pools[name] ? gpus * (pools[name].ready + pools[name].starting + pools[name].terminating) : 0),
    0,
  );

/** Unix time by the planner's clock, ms. */
export const plannerWall = () => Date.parse(at.state.clock.time) + performance.now() - at.gotAt;
