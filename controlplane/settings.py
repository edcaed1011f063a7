"""Django's settings. The only module that reads the environment, with `data_dir`.

Rule: with nothing set, everything runs in one process on SQLite. `DATABASE_URL` and `REDIS_URL` scale it out.
docs/stored-state.md lists every variable read here.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import dj_database_url
from django.utils.functional import SimpleLazyObject

from controlplane import data_dir

BASE_DIR = data_dir.PROJECT_ROOT
DATA_DIR = data_dir.path()
POSTGRES_TIMEOUT_S = 5  # how long a connection may take
SQLITE_TIMEOUT_S = 20  # how long a writer waits for another one


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")


def _words(name: str) -> list[str]:
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


DEBUG = _flag("NARROWGAUGE_DEBUG")
# Lazy, so that importing the settings (checks, tests, makemigrations) creates no file.
SECRET_KEY = SimpleLazyObject(data_dir.secret_key)
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *_words("NARROWGAUGE_ALLOWED_HOSTS")]
CSRF_TRUSTED_ORIGINS = _words("NARROWGAUGE_TRUSTED_ORIGINS")
CORS_ORIGINS = _words("NARROWGAUGE_CORS_ORIGINS")

INSTALLED_APPS = [
    "daphne",  # first: it takes over runserver
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "controlplane",
    "dashboard",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "controlplane.security.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _databases() -> dict[str, dict]:
    url = os.environ.get("DATABASE_URL", "")
    if url and not url.startswith("sqlite"):
        server = dict(dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True))
        if "postgresql" in server["ENGINE"]:  # one that does not answer is away, and soon said to be
            server["OPTIONS"] = {"connect_timeout": POSTGRES_TIMEOUT_S, **server.get("OPTIONS", {})}
        return {"default": server}
    name = dj_database_url.parse(url)["NAME"] if url else DATA_DIR / data_dir.DATABASE_FILE
    return {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": name,
            "OPTIONS": {
                "timeout": SQLITE_TIMEOUT_S,
                # A transaction that starts by reading and then writes would fail at once, not wait, if another
                # writer came between: taking the write lock at the start makes it wait.
                "transaction_mode": "IMMEDIATE",
                # WAL: readers and the one writer do not block each other. NORMAL: a power cut may lose the last
                # transactions but never harms the file.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }


DATABASES = _databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "")
NODE_GROUP = os.environ.get("NARROWGAUGE_NODE_GROUP", "").strip() or "main"  # whose engine a web process speaks to
CHANNEL_LAYERS = {
    "default": (
        {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

# Behind a TLS proxy: NARROWGAUGE_HTTPS=1. The proxy must set (and strip from callers) X-Forwarded-Proto and -For.
if _flag("NARROWGAUGE_HTTPS"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    # Agents on this machine call the APIs past the proxy; a key is no cookie, and a redirect of a POST loses its body.
    SECURE_REDIRECT_EXEMPT = [r"^control/v1/"]
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    # Preloading binds a whole domain for years; whoever owns the domain may ask for it, not we.
    SILENCED_SYSTEM_CHECKS = ["security.W021"]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

STATIC_URL = "/static/"
# plotly.js comes in plotly's own package; nothing is fetched from elsewhere.
STATICFILES_DIRS = [BASE_DIR / "static", ("plotly", Path(find_spec("plotly").origin).parent / "package_data")]
STATIC_ROOT = BASE_DIR / "staticfiles"

# What the semantic cache and the choice of a conversation's messages compare texts by: see optimizer/embedding.py.
EMBEDDER = os.environ.get("NARROWGAUGE_EMBEDDER", "").strip() or "wordllama"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = os.environ.get("NARROWGAUGE_TIME_ZONE", "UTC")
USE_TZ = True
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "controlplane.logs.LineFormatter"}},
    "filters": {"without_traceback": {"()": "controlplane.logs.WithoutTraceback"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("NARROWGAUGE_LOG_LEVEL", "INFO").upper()},
    "loggers": {
        # Django brings its own handlers for these two: one record, one line.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        "django.security.DisallowedHost": {"filters": ["without_traceback"]},
        "django.request": {"level": "ERROR"},  # what a caller did wrong is in the answer, not in the log
        "daphne": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
    },
}
