// Choosing a word shows the terms that come from it, and choosing a term its words.
const tied = document.querySelectorAll("[data-at]");
const caption = document.getElementById("caption");
const unchosen = caption.textContent;

function choose(target) {
  const places = new Set(target ? target.dataset.at.split(" ") : []);
  document.body.classList.toggle("choosing", places.size > 0);
  for (const one of tied) {
    one.classList.toggle("on", one.dataset.at.split(" ").some((place) => places.has(place)));
  }
  caption.textContent = target ? target.dataset.says : unchosen;
}

for (const kind of ["pointerover", "focusin", "click"]) {
  document.addEventListener(kind, (event) => {
    const target = event.target.closest("[data-at]");
    if (target || kind === "click") choose(target);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") choose(null);
});
