// Elements without markup: every text, whoever it came from, is set as text.

/** An element; names with a dash and `role` are attributes, the others properties. */
export function el(kind, given = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(given)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A button that asks once more before it acts. */
export function sureButton(text, question, act) {
  const button = el("button", { type: "button", className: "quiet", textContent: text });
  const calm = () => {
    button.textContent = text;
    button.classList.remove("bad");
  };
  button.onblur = calm;
  button.onclick = () => {
    if (button.classList.contains("bad")) return act();
    button.textContent = question;
    button.classList.add("bad");
  };
  return button;
}
