{{- define "imageprocessing.labels" -}}
{{ include "imageprocessing.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "imageprocessing.selector" -}}
app.kubernetes.io/name: imageprocessing-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "imageprocessing.image" -}}
{{- with .image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.root.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "imageprocessing.workerNamespaces" -}}
{{ .Values.worker.serviceAccount.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}
