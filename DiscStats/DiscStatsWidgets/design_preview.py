"""The formula's design, live: columns, people, rank and remarks, or what is wrong, in words; with completion."""

import re

from slicer.i18n import tr as _

from DiscRelaxometryLib.errors import DesignError, DiscRelaxometryError

MAX_NAMES = 12


class DesignPreview:
    """Follows formula and table of the panel."""

    def __init__(self, ui):
        import qt

        self.ui, self.valid, self._names, self._seen, self._table = ui, False, [], None, None
        #: Disc levels that the table has grades for; None where the formula asks for none of them.
        self.levels = None
        self.completer = qt.QCompleter()
        self.completer.setCaseSensitivity(qt.Qt.CaseInsensitive)
        ui.formulaEdit.setCompleter(self.completer)
        ui.formulaEdit.textEdited.connect(self.complete)

    def complete(self, text):
        """Offer the formula so far with its last name completed."""
        import qt

        start = re.search(r"\w*$", text).start()
        prefix, begun = text[:start], text[start:].lower()
        offers = [prefix + n for n in self._names if begun and n.lower().startswith(begun) and n.lower() != begun]
        # The completer does not own its model: without this reference it would be collected.
        self._offers = qt.QStringListModel(offers[:MAX_NAMES])
        self.completer.setModel(self._offers)

    def update(self, p, table, people, waiting):
        """Renew the preview by settings, table and ids of those who have a map; without a table say `waiting`."""
        state = (p.formula, p.contrast, p.dropRows, tuple(people), waiting)
        if state == self._seen and table is self._table:
            return
        self._seen, self._table = state, table
        self._names = [] if table is None else self._completions(table)
        self.valid, self.levels, text = False, None, waiting
        if table is not None:
            try:
                text = self._describe(table[table["participant_id"].astype(str).isin(people)], p)
                self.valid = True
            except DiscRelaxometryError as error:
                text = str(error)
        self.ui.designView.setPlainText(text)

    @staticmethod
    def _completions(table):
        """Return column names, and the names that stand for one column per level."""
        from DiscRelaxometryLib.labels import DISCS
        from DiscStatsLib.design import level_columns

        names = [str(c) for c in table.columns if c != "participant_id"]
        shared = [n[:-len(d.key) - 1] for n in names for d in DISCS if n in level_columns(n[:-len(d.key) - 1], d.name)]
        return list(dict.fromkeys([*shared, *names, "C(", "rank(", "center("]))

    def _describe(self, table, p):
        """Return the words for a design that can be used."""
        from DiscRelaxometryLib.labels import LUMBAR_LEVELS
        from DiscStatsLib.design import build_contrasts, build_design, is_level_wise, level_columns, parse_formula

        formula = parse_formula(p.formula)
        by_level = [n for n in formula.names if is_level_wise(n, table.columns)]
        lines, remarks, levels = [], [], ("",)
        if by_level:
            levels = self.levels = [v for v in reversed(LUMBAR_LEVELS) if all(
                any(c in table.columns for c in level_columns(n, v)) for n in by_level)]
            lacking = [v for v in reversed(LUMBAR_LEVELS) if v not in levels]
            if not levels:
                raise DesignError(_("No disc level has a column for each of {names}.").format(
                    names=", ".join(by_level)), anchor="formula")
            if lacking:
                remarks.append(_("Left out, for want of a column: {levels}.").format(levels=", ".join(lacking)))
        for level in levels:
            design = build_design(formula, table, level=level, missing="drop" if p.dropRows else "error")
            contrasts = build_contrasts(p.contrast or None, design)
            where = f"{level}: " if level else ""
            lines.append(where + _("{n} people, {columns} columns, rank {rank}").format(
                n=design.n, columns=len(design.columns), rank=design.rank))
            remarks += [w for w in design.warnings if w not in remarks]
        head = _("Columns: {names}").format(names=", ".join(design.columns[:MAX_NAMES]))
        tested = _("Tested: {names}").format(names=", ".join(f"{c.name} ({c.kind})" for c in contrasts))
        return "\n".join([head, *lines, tested, *remarks])
