// Makes the page follow its form at once. Without it, the form's button does.
const WAIT = 120; // ms after the last change

const controls = document.getElementById("controls");
const shown = document.getElementById("shown");
let timer = 0;
let asked = null; // the request on its way

if (controls) {
  document.body.classList.add("live");
  controls.addEventListener("input", (event) => {
    const output = event.target.parentElement.querySelector("output");
    if (output) output.textContent = event.target.value;
    clearTimeout(timer);
    timer = setTimeout(() => show(chosen(), false), WAIT);
  });
  controls.addEventListener("change", () => {
    clearTimeout(timer);
    show(chosen(), true);
  });
  controls.addEventListener("submit", (event) => {
    event.preventDefault();
    show(chosen(), true);
  });
  addEventListener("popstate", () => location.reload());
  addEventListener("keydown", turn);
  shown.addEventListener("click", (event) => {
    const link = event.target.closest("a[rel]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(link.href, true);
  });
  // Errors of pictures do not bubble, but they can be caught on their way down.
  shown.addEventListener("error", complain, true);
}

// The address that the form stands for.
function chosen() {
  const fields = [...new FormData(controls)].filter(([, value]) => value !== "");
  return `${controls.action}?${new URLSearchParams(fields)}`;
}

// Arrow keys turn to other seeds, unless a field has use for them.
function turn(event) {
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const typing = event.target.closest("input, select, textarea");
  if (!rel || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const link = shown.querySelector(`a[rel=${rel}]`);
  if (link) show(link.href, true);
}

// Shows another state; `step`: as a step of its own to come back to.
async function show(address, step) {
  asked?.abort();
  const own = (asked = new AbortController());
  shown.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { signal: own.signal, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) return tell(page.querySelector(".problem")?.textContent ?? answer.statusText);
    const fresh = page.getElementById("shown");
    replace(fresh);
    // The fields that other things than themselves have changed, as the first seed.
    for (const field of page.querySelectorAll("#controls [name]")) {
      const there = controls.elements.namedItem(field.name);
      if (there && there !== document.activeElement) there.value = field.value;
    }
    if (answer.url !== location.href) history[step ? "pushState" : "replaceState"](null, "", answer.url);
  } catch (error) {
    if (error.name !== "AbortError") tell("galatea ui does not answer any more; start it again");
  } finally {
    if (asked === own) shown.removeAttribute("aria-busy");
  }
}

// Takes over what is new; pictures stay until the new ones are there, and give up old requests.
function replace(fresh) {
  const before = [...shown.querySelectorAll("img")];
  const after = [...fresh.querySelectorAll("img")];
  const alike = before.length === after.length;
  if (alike) {
    after.forEach((img, k) => {
      if (before[k].getAttribute("src") !== img.getAttribute("src")) before[k].src = img.getAttribute("src");
      before[k].alt = img.alt;
      img.replaceWith(before[k]);
    });
  }
  shown.replaceChildren(...fresh.childNodes);
}

function tell(problem) {
  shown.querySelector(":scope > .problem")?.remove();
  const line = document.createElement("p");
  line.className = "problem";
  line.setAttribute("role", "alert");
  line.textContent = problem;
  shown.prepend(line);
}

// Says why a picture is missing.
async function complain(event) {
  if (event.target.tagName !== "IMG") return;
  try {
    const answer = await fetch(event.target.src, { headers: { Accept: "text/plain" } });
    if (!answer.ok) tell(await answer.text());
  } catch {
    tell("galatea ui does not answer any more; start it again");
  }
}

const drop = document.getElementById("drop");
if (drop) {
  const field = drop.querySelector("input[type=file]");
  const status = drop.querySelector("[role=status]");
  const send = async (file) => {
    status.textContent = `reading ${file.name} …`;
    status.className = "";
    const body = new FormData();
    body.append("file", file);
    try {
      const answer = await fetch(drop.action, { method: "POST", body, headers: { Accept: "text/plain" } });
      if (answer.ok) return location.assign(answer.url);
      status.textContent = await answer.text();
    } catch {
      status.textContent = "galatea ui does not answer any more; start it again";
    }
    status.className = "problem";
  };
  field.addEventListener("change", () => field.files[0] && send(field.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
  }
}
