#!/bin/sh
# Processes a catalogue and waits for the end:
#
#   process.sh products.csv request.yaml [kubectl's options, such as -n shop]
#
# request.yaml has the rest of the request; its name and source come from the CSV: the same CSV
# is the same request, and is not done again. Exit code: 0 Succeeded or PartiallySucceeded,
# 1 any other end, or none within TIMEOUT (default 6h).
set -eu
csv=$1 request=$2
shift 2
name=$(basename "$csv" .csv)-$(sha256sum "$csv" | cut -c1-8)

kubectl create configmap "$name" --from-file=products.csv="$csv" --dry-run=client -o yaml |
  kubectl apply "$@" -f -
patch='{"metadata":{"name":"'$name'"},"spec":{"requestID":"'$name'","source":{"configMapKeyRef":{"name":"'$name'","key":"products.csv"}}}}'
kubectl patch --local -f "$request" --type=merge -p "$patch" -o yaml | kubectl apply "$@" -f -

kubectl wait "ipr/$name" "$@" --for=condition=Finished --timeout="${TIMEOUT:-6h}" > /dev/null || true
kubectl get "ipr/$name" "$@" -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.reason}: {.message}{"\n"}{end}'
kubectl get "ipr/$name" "$@" -o jsonpath='CSV: {.status.results.csvURL}{"\n"}Failures: {.status.results.failedURL}{"\n"}'
test "$(kubectl get "ipr/$name" "$@" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True
