# Completion of medcli in PowerShell 5 or later. The program itself answers; paths are left to PowerShell.
Register-ArgumentCompleter -Native -CommandName medcli -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.StartOffset -lt $cursorPosition } |
        ForEach-Object { $_.Extent.Text })
    if ($wordToComplete -eq '') { $words += '' }
    $env:COMP_WORDS = $words -join "`n"
    $env:COMP_CWORD = $words.Count - 1
    $env:_MEDCLI_COMPLETE = 'complete_powershell'
    try { $reply = @(& $words[0] 2>$null) }
    finally { Remove-Item Env:COMP_WORDS, Env:COMP_CWORD, Env:_MEDCLI_COMPLETE }
    $mode, $lines = $reply
    $start = if ($wordToComplete -match '^(--[^=]*=)') { $Matches[1] } else { '' }
    foreach ($line in $lines) {
        $value, $text = $line -split "`t", 2
        if (-not $text) { $text = $value }
        [System.Management.Automation.CompletionResult]::new("$start$value", $value, 'ParameterValue', $text)
    }
    if ($mode -match 'files|dirs') {
        [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete.Substring($start.Length))
    }
}
