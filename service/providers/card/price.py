"""The price list of an operation as a card writes it, and what makes one that a caller could talk down.

Owns the form only; `quote` puts it to use. It must not know accounts nor their limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from jsonschema import Draft202012Validator
from pydantic import AfterValidator, BeforeValidator, Field

from service.providers.card.forms import Part, Usd

MAX_COUNT: Final = 10_000  # of what one price is multiplied by: more is not one request
_MAX_USD: Final = Decimal(1_000_000)  # of one row; a higher one is a slip
_PLACES: Final = -6  # money is counted in micro-dollars
_TYPES: Final = {"string": str, "integer": int, "boolean": bool}
#: The rules of a field's schema that a value is tried on; those that hold schemas may refer to others.
_RULES: Final = (
    *("type", "enum", "const", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)


def _listed(usd: Decimal) -> Decimal:
    exponent = usd.normalize().as_tuple().exponent
    if usd > _MAX_USD or not isinstance(exponent, int) or exponent < _PLACES:
        raise ValueError(f"write US dollars with at most six decimal places, up to {_MAX_USD}")
    return usd


class PriceRow(Part):
    """The price of an operation, where the input has these values."""

    where: dict[str, str | int | bool] = Field(default_factory=dict)
    usd: Annotated[Usd, AfterValidator(_listed)]


class Price(Part):
    """The price list: the first row that fits, times the input's field `per`; what failures cost needs no rows.

    Args:
        unknown: What no row fits is taken from limited accounts, too: a ceiling is held until the completion tells its cost.
    """

    rows: list[PriceRow] = Field(default_factory=list)
    per: str | None = None
    failures: Literal["free", "assumed_free", "unknown"] = "unknown"
    unknown: bool = False

    def check(self, schema: Mapping[str, Any]) -> None:
        """Refuse a list that depends on fields which the input's schema leaves open.

        Args:
            schema: The operation's input schema.

        Raises:
            ValueError: A field could be written in a way that no row fits, or that counts less than it is.
        """
        fields = schema.get("properties", {})
        if self.per is not None:
            _check_count(self.per, fields.get(self.per))
        for name in dict.fromkeys(name for row in self.rows for name in row.where):
            values = [row.where[name] for row in self.rows if name in row.where]
            _check_field(name, fields.get(name), values)


def _check_count(name: str, field: object) -> None:
    """The field that multiplies the price: a whole number within bounds, so that every input has a price."""
    low, high = (field.get("minimum"), field.get("maximum")) if isinstance(field, dict) else (None, None)
    typed = isinstance(field, dict) and field.get("type") == "integer"
    if not typed or type(low) is not int or type(high) is not int or not 1 <= low <= high <= MAX_COUNT:
        raise ValueError(
            f"per: input.properties.{name} must be {{type: integer, minimum: 1, maximum: …}}, of at most {MAX_COUNT}: "
            "otherwise a number such as 0 or a text such as '4' has no price"
        )
    _check_values(f"the default of input.properties.{name}", field, _default(field))


def _check_field(name: str, field: object, values: list[str | int | bool]) -> None:
    """A field that chooses the row: of one type, which the rows' values have."""
    kind = field.get("type") if isinstance(field, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(
            f"where: input.properties.{name} must have the type string, integer or boolean: otherwise a list or null "
            "in it has no price"
        )
    _check_values(f"input.properties.{name}", field, [*_default(field), *values])


def _check_values(called: str, field: Any, values: list[Any]) -> None:
    kind = _TYPES[field["type"]]
    judge = Draft202012Validator({rule: field[rule] for rule in _RULES if rule in field})
    for value in values:
        if type(value) is not kind or not judge.is_valid(value):
            raise ValueError(f"{called} can never be {value!r} by its own schema")


def _default(field: Any) -> list[Any]:
    return [field["default"]] if "default" in field else []


def _spelt_out(value: object) -> object:
    """`price: unknown` is short for `price: {unknown: true}`."""
    if isinstance(value, str) and value != "unknown":
        raise ValueError("write `unknown`, or an object with `rows`")
    return {"unknown": True} if value == "unknown" else value


#: What a card may write as `price`.
PriceForm = Annotated[Price, BeforeValidator(_spelt_out, json_schema_input_type=Price | Literal["unknown"])]
