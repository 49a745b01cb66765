"""The tests of tests/unit/storage, over Valkey and Redis."""

from tests.unit.storage.test_ledger import *  # noqa: F403
from tests.unit.storage.test_listing import *  # noqa: F403
from tests.unit.storage.test_quotas import *  # noqa: F403
from tests.unit.storage.test_records import *  # noqa: F403
