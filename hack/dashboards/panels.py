"""Panels in the few shapes that the dashboard needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = 8


@dataclass(frozen=True)
class Query:
    """An expression and the name of its series."""

    expr: str
    legend: str = ""


def graph(
    title: str, unit: str, *queries: Query, text: str = "", stacked: bool = False
) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(8)
        .height(_HEIGHT)
        .fill_opacity(30 if stacked else 8)
        .show_points(looks.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(looks.TooltipDisplayMode.MULTI)
            .sort(looks.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(letter)
            .datasource(SOURCE)
        )
    return panel


def number(title: str, expr: str, *colours: tuple[float, str], base: str = "green") -> stat.Panel:
    """One number; each colour holds from its value on."""
    steps = [models.Threshold(color=base)]
    steps += [models.Threshold(value=value, color=colour) for value, colour in colours]
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .span(4)
        .height(4)
        .no_value("0")
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .graph_mode(looks.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        # Over a range, the last value of a count would stay after all that it counts is gone.
        .with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A").datasource(SOURCE))
    )


@dataclass(frozen=True)
class Column:
    """The value of an expression as a column; without a title its labels are all that shows."""

    expr: str
    title: str = ""
    unit: str = ""


def grid(title: str, columns: Sequence[Column], labels: Sequence[str]) -> table.Panel:
    """One row for each object; the expressions are joined by the labels that they share."""
    panel = table.Panel().title(title).datasource(SOURCE).span(12).height(10).filterable(True)
    order = [*labels]
    hidden, names = {"Time": True}, {}
    for letter, column in zip("ABCDEFGH", columns, strict=False):
        value = f"Value #{letter}"
        if column.title:
            names[value] = column.title
            order.append(value)
            if column.unit:
                unit = models.DynamicConfigValue(id_val="unit", value=column.unit)
                panel.override_by_name(column.title, [unit])
        else:
            hidden[value] = True
        panel.with_target(
            prometheus.Dataquery()
            .expr(column.expr)
            .instant()
            .format(PromQueryFormat.TABLE)
            .ref_id(letter)
            .datasource(SOURCE)
        )
    return panel.with_transformation(
        models.DataTransformerConfig(id_val="merge", options={})
    ).with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": hidden,
                "indexByName": {name: index for index, name in enumerate(order)},
                "renameByName": names,
            },
        )
    )
