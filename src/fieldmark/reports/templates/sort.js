// Sort a table by a click on a column's name; a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    button.addEventListener("click", () => {
      const turn = head.ariaSort === "ascending" ? -1 : 1;
      const numbers = head.classList.contains("n");
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        turn * (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b))));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = turn === 1 ? "ascending" : "descending";
      table.tBodies[0].append(...rows);
    });
  });
}
