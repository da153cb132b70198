"use strict";
(() => {
  const search = document.querySelector("input[type=search]");
  const count = document.querySelector(".count");
  const calls = [...document.querySelectorAll("details[data-find]")];
  const sections = [...document.querySelectorAll("section[data-part]")];

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const call of calls) {
      const match = words.every((word) => call.dataset.find.includes(word));
      call.hidden = !match;
      found += match ? 1 : 0;
    }
    for (const section of sections) {
      section.hidden = !section.querySelector("details:not([hidden])");
    }
    count.textContent = words.length ? `${found} of ${calls.length}` : `${calls.length} calls and shapes`;
  }

  function open() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  }

  search.addEventListener("input", show);
  addEventListener("hashchange", open);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && document.activeElement === search) {
      search.value = "";
      show();
    }
  });
  show();
  open();
})();
