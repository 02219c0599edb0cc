# Compiles modules, for a layer of bytecode: from stdin to stdout, as the
# interpreter may run in a container. Modules are read as "SIZE PATH\n" and SIZE
# bytes of source, the path being that in the image. What is written is a line
# that tells the interpreter, and for each module "SIZE\n" and SIZE bytes: the
# hash of its source that invalidates bytecode (PEP 552), and the code object,
# marshalled. SIZE is 0 for one that does not compile. Starts on any Python, to
# say which one it is.
import binascii
import json
import sys
import warnings

sys.path = [path for path in sys.path if path]
source = getattr(sys.stdin, "buffer", sys.stdin)
target = getattr(sys.stdout, "buffer", sys.stdout)
answer = {
    "implementation": getattr(getattr(sys, "implementation", None), "name", ""),
    "version": "%d.%d.%d" % tuple(sys.version_info[:3]),
    "minor": "%d.%d" % tuple(sys.version_info[:2]),
    "level": sys.version_info[3],
}
try:
    from importlib.util import MAGIC_NUMBER, source_hash

    answer["magic"] = binascii.b2a_base64(MAGIC_NUMBER).decode("ascii").strip()
except ImportError:
    pass
target.write(("imgwrap " + json.dumps(answer) + "\n").encode("ascii"))
target.flush()

warnings.simplefilter("ignore")
while True:
    head = source.readline()
    if not head:
        break
    size, path = head.decode("utf-8").rstrip("\n").split(" ", 1)
    text = source.read(int(size))
    try:
        import marshal

        code = compile(text, path, "exec", dont_inherit=True, optimize=0)
        compiled = source_hash(text) + marshal.dumps(code)
    except Exception:
        compiled = b""
    target.write(("%d\n" % len(compiled)).encode("ascii"))
    target.write(compiled)
target.flush()
