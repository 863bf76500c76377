from .executor import ClusterExecutor as ClusterExecutor, open_cluster as open_cluster
from .request_budget import (
    OwnRequestBudget as OwnRequestBudget,
    RequestBudget as RequestBudget,
    request_budget as request_budget,
)
