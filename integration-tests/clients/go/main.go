// Runs the official Go remoting client through its paces against whatever serves at the given nameserver address.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type testCase struct {
	name string
	body func(*stage)
}

// The longest waits come first, so that the short cases run beside them.
func allCases() []testCase {
	return slices.Concat(transactionCases, retryCases, consumeCases, orderCases, pullCases, requestCases, sendCases, bodyCases, adminCases)
}

func main() {
	namesrv := flag.String("namesrv", "", "address of the nameserver")
	cluster := flag.String("cluster", "DefaultCluster", "name of the cluster")
	only := flag.String("only", "", "names of the cases to run, separated by commas")
	jobs := flag.Int("jobs", 10, "cases that run at the same time")
	list := flag.Bool("list", false, "print the names of the cases")
	flag.Parse()
	cases := allCases()
	if *list {
		for _, each := range cases {
			fmt.Println(each.name)
		}
		return
	}
	if *only != "" {
		names := strings.Split(*only, ",")
		cases = slices.DeleteFunc(cases, func(each testCase) bool { return !slices.Contains(names, each.name) })
		if len(cases) != len(names) {
			fmt.Fprintln(os.Stderr, "--only names a case that does not exist")
			os.Exit(2)
		}
	}
	if *namesrv == "" {
		fmt.Fprintln(os.Stderr, "--namesrv is missing")
		os.Exit(2)
	}
	rlog.SetLogLevel("fatal")
	if !run(cases, *namesrv, *cluster, *jobs) {
		os.Exit(1)
	}
}

func run(cases []testCase, namesrv, cluster string, jobs int) bool {
	ground, err := prepare(namesrv, cluster)
	if err != nil {
		fmt.Println("FAIL start:", err)
		fmt.Println("0 passed, 1 failed")
		return false
	}
	var printing sync.Mutex
	var wait sync.WaitGroup
	failed := 0
	free := make(chan struct{}, jobs)
	for _, each := range cases {
		free <- struct{}{}
		wait.Add(1)
		go func() {
			defer wait.Done()
			start := time.Now()
			problem := attempt(each, ground)
			<-free
			printing.Lock()
			defer printing.Unlock()
			if problem == "" {
				fmt.Printf("PASS %s %.1fs\n", each.name, time.Since(start).Seconds())
			} else {
				failed++
				fmt.Printf("FAIL %s: %s\n", each.name, problem)
			}
		}()
	}
	wait.Wait()
	fmt.Printf("%d passed, %d failed\n", len(cases)-failed, failed)
	return failed == 0
}

// The reason of the failure on one line, or nothing.
func attempt(each testCase, ground *ground) (problem string) {
	s := &stage{ground: ground, name: each.name}
	defer s.close()
	defer func() {
		if thrown := recover(); thrown != nil {
			problem = strings.ReplaceAll(fmt.Sprint(thrown), "\n", " ") + whereFailed()
		}
	}()
	each.body(s)
	return ""
}

// The line of the case that did not hold: the first caller outside of the files of demands and stages.
func whereFailed() string {
	callers := make([]uintptr, 50)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	for {
		frame, more := frames.Next()
		file := filepath.Base(frame.File)
		if strings.HasSuffix(file, "_cases.go") {
			return fmt.Sprintf(" (%s:%d)", file, frame.Line)
		}
		if !more {
			return ""
		}
	}
}
