// What GitOps tools make of our resource, by their own code.
//
//	tools health SCRIPT < OBJECTS   for each JSON object a line of JSON: kstatus and Argo CD's health
//	tools apply < OBJECTS           applies YAML as Flux's kustomize-controller does
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fluxcd/pkg/ssa"
	ssautils "github.com/fluxcd/pkg/ssa/utils"
	luajson "layeh.com/gopher-json"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "health":
		script, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		return health(string(script), bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout))
	case len(args) == 1 && args[0] == "apply":
		return apply(context.Background(), os.Stdin)
	}
	return errors.New("health SCRIPT, or apply")
}

func health(script string, in io.Reader, out *json.Encoder) error {
	for decoder := json.NewDecoder(in); ; {
		var text json.RawMessage
		if err := decoder.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		found, err := status.Compute(object)
		if err != nil {
			return err
		}
		argo, err := argoHealth(script, object)
		if err != nil {
			return err
		}
		if err := out.Encode(map[string]any{"kstatus": found.Status, "argo": argo}); err != nil {
			return err
		}
	}
}

// argoHealth runs a health script with the libraries and the time that Argo CD gives it
// (util/lua/lua.go); what is being deleted never reaches the script (GetResourceHealth).
func argoHealth(script string, object *unstructured.Unstructured) (map[string]any, error) {
	if object.GetDeletionTimestamp() != nil {
		return map[string]any{"status": "Progressing", "message": "Pending deletion"}, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		call := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	plain, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	value, err := luajson.Decode(state, plain)
	if err != nil {
		return nil, err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	text, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return nil, err
	}
	said := map[string]any{}
	return said, json.Unmarshal(text, &said)
}

func apply(ctx context.Context, in io.Reader) error {
	objects, err := ssautils.ReadObjects(in)
	if err != nil {
		return err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return err
	}
	caller, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	const group = "kustomize.toolkit.fluxcd.io"
	manager := ssa.NewResourceManager(caller, nil, ssa.Owner{Field: "kustomize-controller", Group: group})
	options := ssa.DefaultApplyOptions()
	options.ForceSelector = map[string]string{group + "/force": "enabled"}
	changes, err := manager.ApplyAll(ctx, objects, options)
	if err != nil {
		return err
	}
	for _, change := range changes.Entries {
		fmt.Println(change.String())
	}
	return nil
}
