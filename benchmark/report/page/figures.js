"use strict";
// G and what follows from it, as benchmark/report/{greeness,crossovers,turns}.py compute it; a test compares the two.
const figures = {
  g(row, mui, tau) {
    const spent = mui * row.iec[0] + row.tec[0];
    return spent > 0 ? Math.pow(row.acc[0], tau) / spent : NaN;
  },
  // Half-width of the 95 % interval, first order, independent inputs; NaN where an input has none.
  half(row, mui, tau) {
    if ([row.acc[1], row.tec[1], row.iec[1]].includes(null) || !row.acc[0]) return NaN;
    const spent = mui * row.iec[0] + row.tec[0];
    return figures.g(row, mui, tau) *
      Math.hypot(tau * row.acc[1] / row.acc[0], mui * row.iec[1] / spent, row.tec[1] / spent);
  },
  known(row) {
    return [row.acc[0], row.tec[0], row.iec[0]].every((value) => value !== null) && row.tec[0] + row.iec[0] > 0;
  },
  // The ranks each row may hold: two differ only by more than the half-width of their difference.
  ranks(rows, mui, tau) {
    const g = rows.map((row) => figures.g(row, mui, tau)), half = rows.map((row) => figures.half(row, mui, tau));
    const above = (a, b) => g[a] - g[b] > Math.hypot(half[a], half[b]);
    return rows.map((_, own) => {
      let better = 0, worse = 0;
      rows.forEach((_, other) => { better += above(other, own); worse += above(own, other); });
      return [1 + better, rows.length - worse];
    });
  },
  crossing(one, other, tau) {
    const a = Math.pow(one.acc[0], tau), b = Math.pow(other.acc[0], tau);
    const mui = (b * one.tec[0] - a * other.tec[0]) / (a * other.iec[0] - b * one.iec[0]);
    return Number.isFinite(mui) && mui > 0 ? mui : NaN;
  },
  // The best row per range of MUI, from 0 to infinity.
  reigns(rows, tau) {
    if (!rows.length) return [];
    const turns = new Set();
    rows.forEach((one, i) => rows.slice(0, i).forEach((other) => turns.add(figures.crossing(one, other, tau))));
    const edges = [0, ...[...turns].filter((mui) => !Number.isNaN(mui)).sort((a, b) => a - b), Infinity];
    const found = [];
    for (let i = 0; i + 1 < edges.length; i += 1) {
      const inside = edges[i + 1] === Infinity ? 2 * edges[i] + 1 : (edges[i] + edges[i + 1]) / 2;
      const best = rows.reduce((top, row) => figures.g(row, inside, tau) > figures.g(top, inside, tau) ? row : top);
      const last = found[found.length - 1];
      if (last && last.row === best) last.to = edges[i + 1];
      else found.push({from: edges[i], to: edges[i + 1], row: best});
    }
    return found;
  },
};
