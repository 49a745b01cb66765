// Modal dialogs.

const $ = (id) => document.getElementById(id);

async function answered(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "ok";
}

/** Resolves to an access token, or to "" if the user has none. */
export async function askToken(wasWrong) {
  $("token-text").textContent = wasWrong
    ? "The server refused this token. Try another one."
    : "This server needs an access token. It is kept until you close the tab.";
  $("token-value").value = "";
  return (await answered($("token"))) ? $("token-value").value.trim() : "";
}

/** Asks for confirmation; `action` is the label of the button. */
export async function confirmed(title, text, action) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-action").textContent = action;
  return answered($("confirm"));
}

/** Lets people edit the list of labels, a label a line. Resolves to the text, or to null if they cancel. */
export async function editLabels(text) {
  $("label-lines").value = text;
  return (await answered($("label-list"))) ? $("label-lines").value : null;
}

for (const id of ["token", "label-list", "confirm"]) {
  const cancel = document.getElementById(`${id}-cancel`); // the page for clips has fewer dialogs
  if (cancel) cancel.onclick = () => $(id).close("");
}
