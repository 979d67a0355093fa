#!/bin/sh
# Makes the development root of the simulated platform, in the shape of AMD's: ARK and ASK
# with RSA 4096 and PSS, a VCEK with P-384 and AMD's extensions, a revocation list. The
# VCEK's private key is kept beside the certificates, because everybody may have it.
# Needs openssl 3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

marker='OBORO DEVELOPMENT ROOT - PROTECTS NOTHING'
chip=$(printf '4f%.0s' $(seq 64))
pss='-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48 -md sha384'
dates='-startdate 19700101000000Z -enddate 99991231235959Z'

cat > ca.cnf <<END
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
serial = serial
crlnumber = crlnumber
policy = any
unique_subject = no
preserve = yes
[any]
organizationName = optional
commonName = supplied
[ark]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[ask]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
[vcek]
1.3.6.1.4.1.3704.1.1 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.2 = ASN1:IA5STRING:Milan-B0
1.3.6.1.4.1.3704.1.3.1 = ASN1:INTEGER:4
1.3.6.1.4.1.3704.1.3.2 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.4 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.5 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.6 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.7 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.3 = ASN1:INTEGER:24
1.3.6.1.4.1.3704.1.3.8 = ASN1:INTEGER:219
1.3.6.1.4.1.3704.1.4 = DER:$chip
END
: > index.txt
echo 01 > serial
echo 01 > crlnumber

request() { openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"; }
for name in ark ask; do
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out "$name.key" 2>/dev/null
done
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out vcek.key
request ark "/O=Oboro/CN=$marker"
request ask "/O=Oboro/CN=$marker (intermediate)"
request vcek "/O=Oboro/CN=SEV-VCEK"

issue() { # authority request extensions; further arguments
    authority=$1 name=$2
    shift 2
    # shellcheck disable=SC2086
    openssl ca -config ca.cnf -batch -notext -keyfile "$authority.key" -in "$name.csr" \
        -extensions "$name" -out "$name.pem" $dates $pss "$@" 2>/dev/null
    openssl x509 -in "$name.pem" -outform der -out "$here/$name.der"
}
issue ark ark -selfsign
issue ark ask -cert ark.pem
issue ask vcek -cert ask.pem
# shellcheck disable=SC2086
openssl ca -config ca.cnf -gencrl -keyfile ark.key -cert ark.pem $pss \
    -crl_lastupdate 19700101000000Z -crl_nextupdate 99991231235959Z -out crl.pem 2>/dev/null
openssl crl -in crl.pem -outform der -out "$here/crl.der"
openssl pkcs8 -topk8 -nocrypt -in vcek.key -outform der -out "$here/vcek.key.der"
chmod 644 "$here/vcek.key.der"
