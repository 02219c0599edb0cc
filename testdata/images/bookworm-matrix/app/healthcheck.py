import os
import urllib.request

urllib.request.urlopen("http://127.0.0.1:%s/stock" % os.environ["PORT"], timeout=5)
