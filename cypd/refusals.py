"""What the product's own API can refuse: its codes, raised where found, answered in one place.

The numbers, statuses and Chinese messages are the contract of ``/api/v1``; the OCI API words the
same refusals as its own specification wants.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple


class Code(Enum):
    """A code as (number, HTTP status, Chinese message, English message)."""

    INVALID_PARAMETER = 10001, 400, "参数错误", "invalid parameter"
    MISSING_PARAMETER = 10002, 400, "缺少参数", "missing parameter"
    WRONG_TYPE = 10003, 400, "参数类型错误", "parameter of the wrong type"
    VALIDATION_FAILED = 10004, 400, "参数校验失败", "validation failed"
    TOO_MANY_REQUESTS = 10005, 429, "请求过于频繁", "too many requests"
    BODY_TOO_LARGE = 10006, 413, "请求体过大", "request body too large"
    NO_SUCH_PATH = 10007, 404, "路径不存在", "no such path"
    METHOD_NOT_ALLOWED = 10008, 405, "请求方法不允许", "method not allowed"

    USER_NOT_FOUND = 20001, 404, "用户不存在", "user not found"
    USER_EXISTS = 20002, 409, "用户已存在", "user exists already"
    PROJECT_NOT_FOUND = 20003, 404, "项目不存在", "project not found"
    PROJECT_EXISTS = 20004, 409, "项目已存在", "project exists already"
    IMAGE_NOT_FOUND = 20005, 404, "镜像不存在", "image not found"
    TAG_NOT_FOUND = 20007, 404, "标签不存在", "tag not found"
    BLOB_NOT_FOUND = 20008, 404, "镜像层不存在", "blob not found"
    QUOTA_EXCEEDED = 20010, 403, "存储配额已超限", "storage quota exceeded"
    NOT_IN_THIS_STATE = 20011, 409, "当前状态不允许此操作", "not allowed in this state"
    WEBHOOK_NOT_FOUND = 20013, 404, "Webhook不存在", "webhook not found"
    DELIVERY_NOT_FOUND = 20014, 404, "投递记录不存在", "delivery not found"
    SCAN_NOT_FOUND = 20015, 404, "扫描任务不存在", "scan not found"
    TOKEN_NOT_FOUND = 20016, 404, "令牌不存在", "token not found"
    MEMBER_NOT_FOUND = 20017, 404, "成员不存在", "member not found"

    NO_CREDENTIALS = 30001, 401, "未提供认证信息", "authentication required"
    TOKEN_EXPIRED = 30002, 401, "令牌已过期", "token expired"
    TOKEN_INVALID = 30003, 401, "令牌无效", "token invalid"
    PERMISSION_MISSING = 30004, 403, "权限不足", "permission missing"
    ACCESS_DENIED = 30005, 403, "禁止访问", "access denied"
    ACCOUNT_DISABLED = 30007, 403, "账户已禁用", "account disabled"
    WRONG_PASSWORD = 30009, 401, "用户名或密码错误", "wrong user name or password"
    TOO_MANY_FAILURES = 30010, 429, "失败次数过多，请稍后再试", "too many failures, try again later"
    ADDRESS_BLOCKED = 30011, 429, "来源地址已被限制", "address blocked, try again later"
    REFRESH_TOKEN_INVALID = 30012, 401, "刷新令牌无效", "refresh token invalid"
    PAT_INVALID = 30013, 401, "个人访问令牌无效", "personal access token invalid"
    LACKS_READ = 30014, 403, "令牌缺少读取权限", "token lacks the read scope"
    LACKS_WRITE = 30015, 403, "令牌缺少写入权限", "token lacks the write scope"
    LACKS_DELETE = 30016, 403, "令牌缺少删除权限", "token lacks the delete scope"
    LACKS_ADMIN = 30017, 403, "令牌缺少管理权限", "token lacks the admin scope"
    UNKNOWN_SCOPE = 30019, 400, "未知的权限范围", "unknown scope"
    SECOND_FACTOR_REQUIRED = 30020, 401, "需要二次验证", "second factor required"
    SECOND_FACTOR_WRONG = 30021, 401, "二次验证码错误", "second-factor code wrong"

    INTERNAL = 50001, 500, "服务器内部错误", "internal error"
    WEBHOOK_FAILED = 50008, 502, "Webhook投递失败", "webhook delivery failed"
    METADATA_UNAVAILABLE = 50002, 503, "元数据服务不可用", "metadata unavailable, try again"
    NO_SCANNER = 50010, 503, "未配置漏洞扫描器", "no scanner configured"

    @property
    def number(self) -> int:
        """The code in the envelope."""
        return self.value[0]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]

    def message(self, *, english: bool = False) -> str:
        """Return what the code means, for a person."""
        return self.value[3] if english else self.value[2]


class FieldError(NamedTuple):
    """What is wrong with one field of a body or query."""

    field: str
    message: str
    """In English: for the one who writes the client."""


class Refusal(Exception):
    """A request that is refused: the answer that its sender shall get.

    ``errors`` goes with the codes 10001 to 10004 alone; ``headers`` are added to the answer
    (``Retry-After``, ``Allow``); ``advice`` says what to do about it, where a code alone can't.
    """

    def __init__(
        self,
        code: Code,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        advice: str = "",
    ) -> None:
        super().__init__(code.message(english=True))
        self.code = code
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.advice = advice


def invalid(field: str, message: str, code: Code = Code.VALIDATION_FAILED) -> Refusal:
    """Return the refusal of one field."""
    return Refusal(code, errors=[FieldError(field, message)])
