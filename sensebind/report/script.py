"""The script of the report page: a time cursor across all panels, with the values and images at that time."""

SCRIPT = """
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("data").textContent);
  var root = document.querySelector(".timeline");
  var axis = root.querySelector(".axis");
  var ticks = axis.querySelector(".t");
  var flag = axis.querySelector(".flag");
  var lens = document.getElementById("lens");
  var values = Array.prototype.slice.call(root.querySelectorAll("output[data-s]"));
  var films = Array.prototype.map.call(root.querySelectorAll(".film"), function (film) {
    var images = Array.prototype.slice.call(film.querySelectorAll("img"));
    var figure = document.createElement("figure");
    var image = document.createElement("img");
    var caption = document.createElement("figcaption");
    image.alt = "";
    figure.appendChild(image);
    figure.appendChild(caption);
    lens.querySelector("div").appendChild(figure);
    return {name: film.dataset.name, images: images, figure: figure, image: image, caption: caption,
            times: images.map(function (i) { return [+i.dataset.t, +i.dataset.e]; })};
  });
  var pinned = false, now = null;

  function clock(ms) {
    var s = ms / 1000;
    if (data.duration < 120000) return s.toFixed(2) + " s";
    var h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, r = (s % 60).toFixed(1);
    if (r.length < 4) r = "0" + r;
    return data.duration < 3600000 ? m + ":" + r : h + ":" + (m < 10 ? "0" : "") + m + ":" + r;
  }
  function last(list, t) {  // index of the last entry that is <= t, or -1
    var low = 0, high = list.length;
    while (low < high) {
      var middle = (low + high) >> 1;
      if (list[middle] <= t) low = middle + 1; else high = middle;
    }
    return low - 1;
  }
  function show(t, x, y) {
    now = Math.min(Math.max(t, 0), data.duration);
    var at = data.series.map(function (s) {
      var i = last(s.t, now);
      return i >= 0 && now <= s.e[i] ? i : -1;
    });
    root.style.setProperty("--f", now / data.duration);
    root.classList.add("on");
    flag.textContent = clock(now);
    axis.setAttribute("aria-valuenow", (now / 1000).toFixed(2));
    axis.setAttribute("aria-valuetext", clock(now));
    values.forEach(function (out) {
      var s = data.series[out.dataset.s], i = at[out.dataset.s];
      out.textContent = i < 0 ? "\\u2013" : (s.v[out.dataset.r][i] * s.unit).toFixed(s.digits);
    });
    var any = false;
    films.forEach(function (film) {
      var i = last(film.times.map(function (p) { return p[0]; }), now);
      var there = i >= 0 && now <= film.times[i][1];
      film.figure.style.display = there ? "" : "none";
      if (!there) return;
      any = true;
      if (film.image.src !== film.images[i].src) film.image.src = film.images[i].src;
      film.caption.textContent = film.name + ", " + clock(film.times[i][0]);
    });
    lens.style.display = any && x !== undefined ? "block" : "none";
    if (!any || x === undefined) return;
    lens.querySelector("b").textContent = clock(now);
    lens.className = y > window.innerHeight / 2 ? "up" : "down";
    var width = lens.offsetWidth, left = x + 18;
    if (left + width > window.innerWidth - 8) left = Math.max(8, Math.min(x - 18, window.innerWidth - 8) - width);
    lens.style.left = left + "px";
  }
  function hide() {
    root.classList.remove("on");
    lens.style.display = "none";
    values.forEach(function (out) { out.textContent = ""; });
    pinned = false;
    now = null;
  }
  function timeAt(event) {
    var box = ticks.getBoundingClientRect();
    return {t: (event.clientX - box.left) / box.width * data.duration, inside: event.clientX >= box.left - 4};
  }
  root.addEventListener("pointermove", function (event) {
    if (pinned) return;
    var p = timeAt(event);
    if (p.inside) show(p.t, event.clientX, event.clientY); else hide();
  });
  root.addEventListener("pointerleave", function () { if (!pinned) hide(); });
  root.addEventListener("click", function (event) {
    var p = timeAt(event), was = pinned;
    if (!p.inside) return;
    show(p.t, event.clientX, event.clientY);
    pinned = !was;
  });
  axis.addEventListener("keydown", function (event) {
    var step = data.duration / (event.shiftKey ? 20 : 200);
    var to = {ArrowRight: (now || 0) + step, ArrowLeft: (now || 0) - step, Home: 0, End: data.duration}[event.key];
    if (event.key === "Escape") hide();
    if (to === undefined) return;
    event.preventDefault();
    pinned = true;
    var box = ticks.getBoundingClientRect();
    show(to, box.left + box.width * Math.min(Math.max(to / data.duration, 0), 1), 0);
  });
  document.addEventListener("keydown", function (event) { if (event.key === "Escape") hide(); });
})();
"""
