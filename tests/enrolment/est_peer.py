"""An EST server for tests: TLS, Basic or client certificate, every request judged by openssl; wrong on demand (the file `mode`)."""
import base64
import http.server
import os
import ssl
import subprocess
import sys

DIR = sys.argv[1]


def at(name):
    return os.path.join(DIR, name)


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def log(line):
    with open(at("log"), "a") as file:
        file.write(line + "\n")


def mode():
    try:
        with open(at("mode")) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def certs_only(*files):
    arguments = [argument for file in files for argument in ("-certfile", at(file))]
    return base64.encodebytes(openssl("crl2pkcs7", "-nocrl", *arguments, "-outform", "DER"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/pkcs7-mime; smime-type=certs-only", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def who(self):
        if self.connection.getpeercert(binary_form=True):
            return "certificate"
        wanted = "Basic " + base64.b64encode(b"gateway:secret").decode()
        return "basic" if self.headers.get("Authorization") == wanted else None

    def do_GET(self):
        operation = self.path.rsplit("/", 1)[-1]
        if operation == "cacerts":
            return self.answer(200, certs_only("ca.pem"))
        if operation == "csrattrs":
            # challengePassword, which nobody here sends.
            return self.answer(200, base64.encodebytes(bytes.fromhex("300b06092a864886f70d010907")), "application/csrattrs")
        return self.answer(404)

    def do_POST(self):
        operation = self.path.rsplit("/", 1)[-1]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        who, kind = self.who(), self.headers.get("Content-Type")
        lawful = (
            operation in ("simpleenroll", "simplereenroll")
            and kind == "application/pkcs10"
            and self.headers.get("Content-Transfer-Encoding") == "base64"
            and all(len(line) <= 76 for line in body.splitlines())
        )
        der = base64.b64decode(body, validate=False)
        with open(at("csr.der"), "wb") as file:
            file.write(der)
        judged = subprocess.run(["openssl", "req", "-inform", "DER", "-in", at("csr.der"), "-verify", "-noout"], capture_output=True)
        lawful = lawful and judged.returncode == 0 and who is not None
        log(f"POST {operation} {kind} {who} {'ok' if lawful else 'not lawful'}")
        if not lawful:
            return self.answer(400, b"the request is not what RFC 7030 says", "text/plain")
        how = mode()
        if how == "pending":
            return self.answer(202, Retry_After="7")
        if how == "busy":
            return self.answer(503, Retry_After="3")
        if how == "redirect":
            return self.answer(302, Location="https://elsewhere.example/")
        if how == "unauthorized":
            return self.answer(401, WWW_Authenticate="Basic")
        if how == "refused":
            return self.answer(400, b"the subject is not one of ours", "text/plain")
        if how == "garbage":
            return self.answer(200, b"bm90IGEgQ01T\n")
        if how == "empty":
            return self.answer(200)
        if how == "huge":
            return self.answer(200, b"QUFB" * 200_000)
        if how == "other-key":
            return self.answer(200, certs_only("client.pem"))
        with open(at("extensions"), "w") as file:
            file.write("keyUsage=critical,digitalSignature,nonRepudiation\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        openssl("x509", "-req", "-inform", "DER", "-in", at("csr.der"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"),
                "-CAcreateserial", "-days", "30", "-extfile", at("extensions"), "-out", at("issued.pem"))
        issued = certs_only("issued.pem")
        return self.answer(200, issued, "text/html" if how == "type" else "application/pkcs7-mime; smime-type=certs-only")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(at("tls.pem"), at("tls.key"))
context.verify_mode = ssl.CERT_OPTIONAL
context.load_verify_locations(at("client.pem"))
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
