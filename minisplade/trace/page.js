// Choosing a token shows what it looks at, in every head of every layer.
const buttons = document.querySelectorAll("[data-token]");

function choose(token) {
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.token) === token));
  }
  for (const figure of document.querySelectorAll("figure")) {
    const percents = values.attention[figure.dataset.layer][figure.dataset.head][token];
    figure.querySelectorAll(".strip .token").forEach((one, place) => {
      one.style.setProperty("--heat", percents[place] / 100);
    });
    const best = [...percents.keys()].sort((a, b) => percents[b] - percents[a] || a - b);
    const told = best.slice(0, 4).filter((place) => percents[place] > 0);
    const looks = told.map((place) => `${values.labels[place]} ${percents[place]}%`).join(", ");
    figure.querySelector(".told").textContent =
      `“${values.labels[token]}” looks at ${looks || "others than these"}`;
  }
}

for (const button of buttons) {
  button.addEventListener("click", () => choose(Number(button.dataset.token)));
}
