// Which model masks come from: told in the header, and chosen there where the server has several.

const $ = (id) => document.getElementById(id);
const KEPT = "maskwire.model"; // in localStorage

export class ModelChoice {
  /** @param on {chosen(model)}: a ModelInfo, at first the one that was chosen before, or the server's default */
  constructor(on) {
    this.on = on;
    this.name = ""; // of the model to ask for; "" for the server's default
    $("models").onchange = ({ target }) => {
      localStorage.setItem(KEPT, target.value);
      this._take(target.value);
    };
  }

  /** Whether people have chosen a model in this browser. */
  get isKept() {
    return localStorage.getItem(KEPT) !== null;
  }

  /** @param models the server's, at least one */
  show(models) {
    this._models = models;
    $("models").hidden = models.length < 2;
    $("models").replaceChildren(...models.map(({ name }) => new Option(name)));
    const kept = localStorage.getItem(KEPT);
    const model = models.find(({ name }) => name === kept) ?? models.find((one) => one.is_default) ?? models[0];
    $("models").value = model.name;
    this._take(model.name);
  }

  _take(name) {
    const model = this._models.find((one) => one.name === name);
    this.name = model.is_default ? "" : name;
    this.on.chosen(model);
  }
}
