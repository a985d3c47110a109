// This script shows at once, and at a tap, what a browser shows after a second's hover. The report is complete without it.
"use strict";
(() => {
  for (const title of document.querySelectorAll("svg title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  let marked = null;
  const show = (event) => {
    const place = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (marked !== place) {
      marked?.classList.remove("on");
      place?.classList.add("on");
      marked = place;
    }
    tip.hidden = !place;
    if (!place) return;
    tip.textContent = place.dataset.tip;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = event.clientX + 14 + width < innerWidth ? event.clientX + 14 : event.clientX - width - 14;
    const top = event.clientY - height - 12 > 0 ? event.clientY - height - 12 : event.clientY + 18;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
  };
  const hide = () => show({ target: null });
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.documentElement.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  addEventListener("beforeprint", () => {
    hide();
    for (const one of document.querySelectorAll("details:not([open])")) one.open = one.dataset.closed = true;
  });
  addEventListener("afterprint", () => {
    for (const one of document.querySelectorAll("details[data-closed]")) {
      one.open = false;
      delete one.dataset.closed;
    }
  });
})();
