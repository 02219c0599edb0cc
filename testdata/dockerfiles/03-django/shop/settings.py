ALLOWED_HOSTS = ["*"]
MIDDLEWARE = []
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "not one"
