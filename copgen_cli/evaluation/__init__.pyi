from .assessment import (
    NUMBERS_FILE as NUMBERS_FILE,
    REPORT_FILE as REPORT_FILE,
    Assessment as Assessment,
    claim_report as claim_report,
)
from .calibration.reliability import Reliability as Reliability
from .pairs import GROUPS as GROUPS
from .report import as_json as as_json, as_text as as_text
from .run import assess_folders as assess_folders, assess_model as assess_model
