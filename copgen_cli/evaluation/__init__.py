"""How good a generated picture is: metrics, and reports of them."""
